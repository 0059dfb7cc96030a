//! Colours as a viewer wants them (RFC 6143, 7.4).

/// How a viewer wants pixels written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    bytes: usize,
    big_endian: bool,
    /// Most of red, green and blue, and how far each is shifted.
    channels: [(u16, u8); 3],
}

/// What this server offers: 32 bits, 0xRRGGBB, little endian.
pub(super) const OFFERED: PixelFormat =
    PixelFormat { bytes: 4, big_endian: false, channels: [(255, 16), (255, 8), (255, 0)] };
/// Bytes of a format on the wire.
pub(super) const LENGTH: usize = 16;

impl PixelFormat {
    /// As it is sent.
    pub fn write(self) -> [u8; LENGTH] {
        let mut out = [0; LENGTH];
        out[..4].copy_from_slice(&[self.bytes as u8 * 8, 24, u8::from(self.big_endian), 1]);
        for (i, (most, shift)) in self.channels.into_iter().enumerate() {
            out[4 + 2 * i..6 + 2 * i].copy_from_slice(&most.to_be_bytes());
            out[10 + i] = shift;
        }
        out
    }

    /// What a viewer sent; none for what isn't true colour of 8, 16 or 32 bits.
    pub fn read(wire: &[u8; LENGTH]) -> Option<PixelFormat> {
        let bytes = match (wire[0], wire[3]) {
            (_, 0) => return None,
            (8, _) => 1,
            (16, _) => 2,
            (32, _) => 4,
            _ => return None,
        };
        let channel = |i: usize| (u16::from_be_bytes([wire[4 + 2 * i], wire[5 + 2 * i]]), wire[10 + i]);
        let channels = [channel(0), channel(1), channel(2)];
        let fits = channels.iter().all(|(_, shift)| *shift < 32);
        fits.then_some(PixelFormat { bytes, big_endian: wire[2] != 0, channels })
    }

    /// The bits that colours have.
    fn mask(self) -> u32 {
        self.channels.iter().fold(0, |mask, (most, shift)| mask | u32::from(*most) << shift)
    }

    /// Appends pixels (0xRRGGBB). Bits that no colour has are set: noVNC 1.3 takes them for opacity.
    pub fn put(self, pixels: &[u32], out: &mut Vec<u8>) {
        for pixel in pixels {
            let mut value = !self.mask();
            for ((most, shift), from) in self.channels.into_iter().zip([16, 8, 0]) {
                let level = (pixel >> from) & 0xff;
                value |= (level * u32::from(most) / 255) << shift;
            }
            match self.big_endian {
                true => out.extend_from_slice(&value.to_be_bytes()[4 - self.bytes..]),
                false => out.extend_from_slice(&value.to_le_bytes()[..self.bytes]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_written_as_they_are_wanted() {
        assert_eq!(PixelFormat::read(&OFFERED.write()), Some(OFFERED));
        let put = |format: PixelFormat| {
            let mut out = Vec::new();
            format.put(&[0x00_ff_80_00], &mut out);
            out
        };
        assert_eq!(put(OFFERED), [0, 0x80, 0xff, 0xff]);
        // As noVNC asks for it: red first.
        let novnc = PixelFormat { channels: [(255, 0), (255, 8), (255, 16)], ..OFFERED };
        assert_eq!(put(novnc), [0xff, 0x80, 0, 0xff]);
        let rgb565 = PixelFormat { bytes: 2, big_endian: true, channels: [(31, 11), (63, 5), (31, 0)] };
        assert_eq!(put(rgb565), 0xfbe0_u16.to_be_bytes());
        let mut palette = OFFERED.write();
        palette[3] = 0;
        assert_eq!(PixelFormat::read(&palette), None);
        let mut odd = OFFERED.write();
        odd[10] = 200;
        assert_eq!(PixelFormat::read(&odd), None);
    }
}
