//! A small picture of a VM's screen: one update of RFB 3.8 (RFC 6143), made smaller, as PNG.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Size when the request doesn't say, as in 4.11.
const USUAL: (u16, u16) = (144, 110);
/// Largest side of a picture.
const LARGEST: u16 = 1024;
/// Largest side of a screen.
const SCREEN: u16 = 4096;
/// How long the screen may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rows of pixels, 0xRRGGBB.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u32>,
}

/// A size that was asked for; 0: the usual one.
pub fn size(width: u16, height: u16) -> (u16, u16) {
    let side = |asked: u16, usual: u16| if asked == 0 { usual } else { asked.min(LARGEST) };
    (side(width, USUAL.0), side(height, USUAL.1))
}

/// Looks at a console once; gives a PNG.
///
/// # Errors
/// When what answers isn't RFB, wants a password, or takes too long.
pub async fn take(console: impl AsyncRead + AsyncWrite + Unpin, size: (u16, u16)) -> io::Result<Vec<u8>> {
    let picture = tokio::time::timeout(PATIENCE, look(console)).await;
    let picture = picture.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(png(&smaller(&picture, size.0.into(), size.1.into())))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn look(mut console: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Picture> {
    let mut version = [0; 12];
    console.read_exact(&mut version).await?;
    if !version.starts_with(b"RFB 003.") {
        return Err(invalid("it isn't a console"));
    }
    console.write_all(b"RFB 003.008\n").await?;
    let mut types = vec![0; usize::from(console.read_u8().await?)];
    console.read_exact(&mut types).await?;
    if !types.contains(&1) {
        return Err(invalid("it wants a password"));
    }
    console.write_all(&[1]).await?;
    if console.read_u32().await? != 0 {
        return Err(invalid("it refuses"));
    }
    console.write_all(&[1]).await?; // others may look, too
    let (width, height) = (console.read_u16().await?, console.read_u16().await?);
    if width == 0 || height == 0 || width > SCREEN || height > SCREEN {
        return Err(invalid("the screen has no size that can be shown"));
    }
    skip(&mut console, 16).await?;
    let name = console.read_u32().await?;
    skip(&mut console, u64::from(name.min(64 * 1024))).await?;
    let mut ask = vec![0, 0, 0, 0];
    ask.extend_from_slice(&[32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]); // 0xRRGGBB, little endian
    ask.extend_from_slice(&[2, 0, 0, 1, 0, 0, 0, 0]); // raw pixels only
    ask.extend_from_slice(&[3, 0, 0, 0, 0, 0]);
    ask.extend_from_slice(&width.to_be_bytes());
    ask.extend_from_slice(&height.to_be_bytes());
    console.write_all(&ask).await?;
    update(&mut console, width.into(), height.into()).await
}

/// Reads messages until one of them was an update.
async fn update(console: &mut (impl AsyncRead + Unpin), width: usize, height: usize) -> io::Result<Picture> {
    let mut picture = Picture { width, height, pixels: vec![0; width * height] };
    loop {
        match console.read_u8().await? {
            0 => break,
            // SetColourMapEntries isn't sent for these pixels, Bell and ServerCutText are passed over.
            2 => {}
            3 => {
                skip(console, 3).await?;
                let length = console.read_u32().await?;
                skip(console, length.into()).await?;
            }
            _ => return Err(invalid("it says what isn't understood")),
        }
    }
    console.read_u8().await?;
    for _ in 0..console.read_u16().await? {
        let (x, y) = (usize::from(console.read_u16().await?), usize::from(console.read_u16().await?));
        let (wide, high) = (usize::from(console.read_u16().await?), usize::from(console.read_u16().await?));
        if console.read_i32().await? != 0 || x + wide > width || y + high > height {
            return Err(invalid("it sends what wasn't asked for"));
        }
        let mut row = vec![0; wide * 4];
        for line in y..y + high {
            console.read_exact(&mut row).await?;
            let to = &mut picture.pixels[line * width + x..][..wide];
            for (pixel, bytes) in to.iter_mut().zip(row.chunks_exact(4)) {
                *pixel = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
            }
        }
    }
    Ok(picture)
}

async fn skip(from: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut from.take(bytes), &mut tokio::io::sink()).await?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Each pixel is the mean of those whose place it takes.
fn smaller(picture: &Picture, width: usize, height: usize) -> Picture {
    let mut pixels = Vec::with_capacity(width * height);
    let part = |at: usize, of: usize, whole: usize| {
        let first = at * whole / of;
        first..((at + 1) * whole / of).max(first + 1)
    };
    for y in 0..height {
        for x in 0..width {
            let (mut sums, mut count) = ([0_u64; 3], 0);
            for line in part(y, height, picture.height) {
                for column in part(x, width, picture.width) {
                    let pixel = picture.pixels[line * picture.width + column];
                    for (sum, shift) in sums.iter_mut().zip([16, 8, 0]) {
                        *sum += u64::from(pixel >> shift & 0xff);
                    }
                    count += 1;
                }
            }
            pixels.push(sums.iter().fold(0, |all, sum| all << 8 | (sum / count) as u32));
        }
    }
    Picture { width, height, pixels }
}

/// As PNG, uncompressed: small pictures aren't worth a compressor.
fn png(picture: &Picture) -> Vec<u8> {
    let mut rows = Vec::with_capacity(picture.pixels.len() * 3 + picture.height);
    for row in picture.pixels.chunks(picture.width) {
        rows.push(0); // no filter
        rows.extend(row.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)));
    }
    let mut stored = vec![0x78, 0x01];
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stored.push(u8::from(blocks.peek().is_none()));
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&(!length).to_le_bytes());
        stored.extend_from_slice(block);
    }
    let (a, b) = rows.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    stored.extend_from_slice(&(b << 16 | a).to_be_bytes());
    let mut head = Vec::new();
    head.extend_from_slice(&(picture.width as u32).to_be_bytes());
    head.extend_from_slice(&(picture.height as u32).to_be_bytes());
    head.extend_from_slice(&[8, 2, 0, 0, 0]); // 8 bits of red, green and blue
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", head.as_slice()), (b"IDAT", &stored), (b"IEND", &[])] {
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        let begin = out.len();
        out.extend_from_slice(kind);
        out.extend_from_slice(data);
        let check = crc(&out[begin..]);
        out.extend_from_slice(&check.to_be_bytes());
    }
    out
}

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_png() {
        assert_eq!(crc(b"IEND"), 0xae42_6082);
        let picture = Picture { width: 2, height: 2, pixels: vec![0xff_00_00, 0x00_ff_00, 0x00_00_ff, 0xff_ff_ff] };
        let one = smaller(&picture, 1, 1);
        assert_eq!(one.pixels, [0x7f_7f_7f]);
        assert_eq!(smaller(&picture, 4, 4).pixels[..4], [0xff_00_00, 0xff_00_00, 0x00_ff_00, 0x00_ff_00]);
        let png = png(&one);
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.ends_with(&[0xae, 0x42, 0x60, 0x82]));
        assert_eq!(size(0, 0), USUAL);
        assert_eq!(size(9999, 50), (LARGEST, 50));
    }

    #[tokio::test]
    async fn what_is_no_console_is_told() {
        for (says, why) in [(&b"HTTP/1.1 400 "[..], "isn't a console"), (&b"RFB 003.008\n\x01\x02"[..], "a password")] {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(says).await.unwrap();
            let error = take(near, USUAL).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
