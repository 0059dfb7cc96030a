//! The server's side of RFB 3.8 (RFC 6143), as far as a simulated screen needs it: no security, raw pixels.

use super::pixels::{self, OFFERED, PixelFormat};
use super::{HEIGHT, Screen, Shown, WIDTH, draw, title};
use contract_agent::VmSpec;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};

/// The version that is offered, and the oldest that is spoken with viewers.
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// The one security type: none.
const NONE: u8 = 1;
/// Longest text that a viewer may paste.
const PASTE: u32 = 1024 * 1024;

/// What a viewer has asked for and not got.
#[derive(Default)]
struct Asked {
    format: Option<PixelFormat>,
    /// An update is wanted; `whole`: of what hasn't changed, too.
    update: bool,
    whole: bool,
}

/// Shows a VM's screen to one viewer, until they go or the VM is off.
pub(in crate::simulator) async fn serve(
    stream: impl AsyncRead + AsyncWrite,
    spec: VmSpec,
    screen: &Screen,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut look = screen.look();
    shake_hands(&mut reader, &mut writer, &spec).await?;
    let (asked, news) = (Mutex::<Asked>::default(), Notify::new());
    tokio::select! {
        ended = listen(&mut reader, screen, &asked, &news) => ended,
        ended = show(&mut writer, &spec, &mut look, &asked, &news) => ended,
    }
}

async fn shake_hands(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    spec: &VmSpec,
) -> io::Result<()> {
    writer.write_all(VERSION).await?;
    let mut theirs = [0; 12];
    reader.read_exact(&mut theirs).await?;
    if theirs != *VERSION {
        return Err(invalid("the viewer doesn't speak RFB 3.8"));
    }
    writer.write_all(&[1, NONE]).await?;
    if reader.read_u8().await? != NONE {
        return Err(invalid("the viewer wants a security type that wasn't offered"));
    }
    writer.write_u32(0).await?; // SecurityResult: well
    reader.read_u8().await?; // whether others may look, too: they may
    let name = title(spec);
    let mut init = Vec::with_capacity(24 + name.len());
    init.extend_from_slice(&WIDTH.to_be_bytes());
    init.extend_from_slice(&HEIGHT.to_be_bytes());
    init.extend_from_slice(&OFFERED.write());
    init.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    init.extend_from_slice(name.as_bytes());
    writer.write_all(&init).await
}

/// Takes the viewer's messages.
async fn listen(
    reader: &mut (impl AsyncRead + Unpin),
    screen: &Screen,
    asked: &Mutex<Asked>,
    news: &Notify,
) -> io::Result<()> {
    let ask = |change: &dyn Fn(&mut Asked)| {
        change(&mut asked.lock().unwrap_or_else(PoisonError::into_inner));
        news.notify_one();
    };
    loop {
        match reader.read_u8().await? {
            // SetPixelFormat
            0 => {
                skip(reader, 3).await?;
                let mut wire = [0; pixels::LENGTH];
                reader.read_exact(&mut wire).await?;
                let format = PixelFormat::read(&wire).ok_or_else(|| invalid("no such pixels"))?;
                ask(&|asked| asked.format = Some(format));
            }
            // SetEncodings: raw is always understood
            2 => {
                reader.read_u8().await?;
                let count = reader.read_u16().await?;
                skip(reader, u64::from(count) * 4).await?;
            }
            // FramebufferUpdateRequest: the whole width is sent, so where doesn't matter
            3 => {
                let incremental = reader.read_u8().await? != 0;
                skip(reader, 8).await?;
                ask(&|asked| (asked.update, asked.whole) = (true, asked.whole || !incremental));
            }
            // KeyEvent
            4 => {
                let down = reader.read_u8().await? != 0;
                reader.read_u16().await?;
                let keysym = reader.read_u32().await?;
                if down {
                    screen.key(keysym);
                }
            }
            // PointerEvent
            5 => skip(reader, 5).await?,
            // ClientCutText
            6 => {
                skip(reader, 3).await?;
                let length = reader.read_u32().await?;
                if length > PASTE {
                    return Err(invalid("too long a text was pasted"));
                }
                skip(reader, length.into()).await?;
            }
            _ => return Err(invalid("the viewer sends what isn't known")),
        }
    }
}

/// Sends updates that were asked for, when there is something new.
async fn show(
    writer: &mut (impl AsyncWrite + Unpin),
    spec: &VmSpec,
    look: &mut watch::Receiver<Shown>,
    asked: &Mutex<Asked>,
    news: &Notify,
) -> io::Result<()> {
    let mut format = OFFERED;
    let mut sent: Vec<u32> = Vec::new();
    loop {
        let shown = look.borrow_and_update().clone();
        if shown.off {
            return Ok(());
        }
        let picture = draw(spec, &shown);
        let rows = {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(wanted) = asked.format.take() {
                format = wanted;
            }
            let rows = if asked.whole { Some((0, usize::from(HEIGHT))) } else { changed(&sent, &picture) };
            let rows = rows.filter(|_| asked.update);
            if rows.is_some() {
                (asked.update, asked.whole) = (false, false);
            }
            rows
        };
        if let Some((first, end)) = rows {
            let width = usize::from(WIDTH);
            let mut update = vec![0, 0, 0, 1]; // FramebufferUpdate with one rectangle
            let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
            for field in [0, number(first), WIDTH, number(end - first), 0, 0] {
                update.extend_from_slice(&field.to_be_bytes()); // x, y, width, height, and raw encoding as two of them
            }
            format.put(&picture[first * width..end * width], &mut update);
            writer.write_all(&update).await?;
            sent = picture;
        }
        tokio::select! {
            changed = look.changed() => if changed.is_err() {
                return Ok(()); // the VM is gone
            },
            () = news.notified() => {}
        }
    }
}

/// The first row that differs, and the one behind the last.
fn changed(before: &[u32], now: &[u32]) -> Option<(usize, usize)> {
    let width = usize::from(WIDTH);
    if before.len() != now.len() {
        return Some((0, now.len() / width));
    }
    let mut rows = before.chunks(width).zip(now.chunks(width)).enumerate().filter(|(_, (a, b))| a != b).map(|(i, _)| i);
    let first = rows.next()?;
    Some((first, rows.next_back().unwrap_or(first) + 1))
}

async fn skip(reader: &mut (impl AsyncRead + Unpin), bytes: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut reader.take(bytes), &mut tokio::io::sink()).await?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)] // a test that panics has failed
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::DuplexStream;

    async fn connected(screen: &Arc<Screen>) -> DuplexStream {
        let (mut viewer, near) = tokio::io::duplex(64 * 1024);
        let screen = screen.clone();
        tokio::spawn(async move {
            let spec = VmSpec { display_name: "web".into(), ..VmSpec::default() };
            serve(near, spec, &screen).await
        });
        let mut version = [0; 12];
        viewer.read_exact(&mut version).await.unwrap();
        viewer.write_all(&version).await.unwrap();
        let mut types = [0; 2];
        viewer.read_exact(&mut types).await.unwrap();
        assert_eq!(types, [1, NONE]);
        viewer.write_all(&[NONE]).await.unwrap();
        assert_eq!(viewer.read_u32().await.unwrap(), 0);
        viewer.write_all(&[1]).await.unwrap();
        let mut init = [0; 24 + 3];
        viewer.read_exact(&mut init).await.unwrap();
        assert_eq!((&init[..4], &init[24..]), (&[2, 128, 1, 144][..], &b"web"[..]));
        viewer
    }

    async fn update(viewer: &mut DuplexStream) -> (u16, usize) {
        assert_eq!(viewer.read_u32().await.unwrap(), 1, "one rectangle");
        let (x, y) = (viewer.read_u16().await.unwrap(), viewer.read_u16().await.unwrap());
        let (width, height) = (viewer.read_u16().await.unwrap(), viewer.read_u16().await.unwrap());
        assert_eq!((x, width, viewer.read_u32().await.unwrap()), (0, WIDTH, 0));
        let mut pixels = vec![0; usize::from(width) * usize::from(height) * 4];
        viewer.read_exact(&mut pixels).await.unwrap();
        (y, pixels.len())
    }

    #[tokio::test]
    async fn a_viewer_sees_the_whole_and_then_what_changes() {
        let screen = Arc::new(Screen::default());
        let mut viewer = connected(&screen).await;
        // Things that viewers say first, and that have no answer.
        viewer.write_all(&[2, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
        viewer.write_all(&[6, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']).await.unwrap();
        viewer.write_all(&[5, 0, 0, 9, 0, 9]).await.unwrap();
        viewer.write_all(&[3, 0, 0, 0, 0, 0, 2, 128, 1, 144]).await.unwrap();
        assert_eq!(update(&mut viewer).await, (0, 640 * 400 * 4));
        // Nothing is new: the next update waits for a key.
        viewer.write_all(&[3, 1, 0, 0, 0, 0, 2, 128, 1, 144]).await.unwrap();
        viewer.write_all(&[4, 1, 0, 0, 0, 0, 0, b'a']).await.unwrap();
        let (y, length) = update(&mut viewer).await;
        assert!(y >= 220 && length < 640 * 32 * 4, "{y} {length}");
        screen.off();
        assert_eq!(viewer.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_ends_it() {
        let screen = Arc::new(Screen::default());
        for nonsense in [&[99][..], &[6, 0, 0, 0, 255, 255, 255, 255], &[0; 20]] {
            let mut viewer = connected(&screen).await;
            viewer.write_all(nonsense).await.unwrap();
            assert_eq!(viewer.read(&mut [0]).await.unwrap(), 0);
        }
    }
}
