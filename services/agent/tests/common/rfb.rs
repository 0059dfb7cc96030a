//! A viewer of consoles: the client's side of RFB 3.8, as far as tests look.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub struct Rfb<S> {
    pub stream: S,
    pub width: u16,
    pub height: u16,
    pub name: String,
}

/// Rows of an update, 0xRRGGBB.
pub struct Update {
    pub y: u16,
    pub pixels: Vec<u32>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rfb<S> {
    pub async fn connect(mut stream: S) -> std::io::Result<Rfb<S>> {
        let mut version = [0; 12];
        stream.read_exact(&mut version).await?;
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version).await?;
        let mut types = vec![0; stream.read_u8().await?.into()];
        stream.read_exact(&mut types).await?;
        assert_eq!(types, [1], "no password");
        stream.write_all(&[1]).await?;
        assert_eq!(stream.read_u32().await?, 0);
        stream.write_all(&[1]).await?;
        let (width, height) = (stream.read_u16().await?, stream.read_u16().await?);
        let mut format = [0; 16];
        stream.read_exact(&mut format).await?;
        assert_eq!(format[..4], [32, 24, 0, 1]);
        let mut name = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut name).await?;
        Ok(Rfb { stream, width, height, name: String::from_utf8(name).unwrap() })
    }

    /// Asks for what is shown, or for what changes.
    pub async fn ask(&mut self, incremental: bool) -> std::io::Result<()> {
        let mut request = vec![3, u8::from(incremental), 0, 0, 0, 0];
        request.extend_from_slice(&self.width.to_be_bytes());
        request.extend_from_slice(&self.height.to_be_bytes());
        self.stream.write_all(&request).await
    }

    /// The next update.
    pub async fn update(&mut self) -> std::io::Result<Update> {
        assert_eq!(self.stream.read_u32().await?, 1, "one rectangle");
        let mut head = [0; 12];
        self.stream.read_exact(&mut head).await?;
        let number = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
        assert_eq!((number(0), number(4), number(8), number(10)), (0, self.width, 0, 0));
        let mut bytes = vec![0; usize::from(number(4)) * usize::from(number(6)) * 4];
        self.stream.read_exact(&mut bytes).await?;
        let pixels = bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], 0])).collect();
        Ok(Update { y: number(2), pixels })
    }

    /// Presses and releases a key.
    pub async fn key(&mut self, keysym: u32) -> std::io::Result<()> {
        for down in [1, 0] {
            let mut event = vec![4, down, 0, 0];
            event.extend_from_slice(&keysym.to_be_bytes());
            self.stream.write_all(&event).await?;
        }
        Ok(())
    }

    /// Waits until the console ends.
    pub async fn end(&mut self) {
        let mut rest = [0; 4096];
        while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}
