//! The files of the page: our own, and noVNC's from where its package puts them.

use std::path::Path;

use bytes::Bytes;

const SCRIPT: &str = include_str!("console.js");
const STYLE: &str = include_str!("console.css");
const JS: &str = "text/javascript; charset=UTF-8";
/// What the page loads first of noVNC.
const FIRST: &str = "core/rfb.js";
/// Folders of noVNC that the viewer needs.
const FOLDERS: &[&str] = &["core", "vendor"];
/// Largest file.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Whether the viewer's files are there.
///
/// # Errors
/// What is missing, and how it is got.
pub async fn check(root: &Path) -> Result<(), String> {
    let first = root.join(FIRST);
    match tokio::fs::metadata(&first).await {
        Ok(file) if file.is_file() => Ok(()),
        _ => Err(format!(
            "The viewer is missing: there is no {}. Install noVNC on the gateway's machine (Debian: apt-get install novnc), \
             or set console_assets under [gateway] to its folder",
            first.display()
        )),
    }
}

/// A file by its name below the page, and its type.
pub async fn file(root: &Path, name: &str) -> Option<(Bytes, &'static str)> {
    match name {
        "console.js" => return Some((Bytes::from_static(SCRIPT.as_bytes()), JS)),
        "console.css" => return Some((Bytes::from_static(STYLE.as_bytes()), "text/css; charset=UTF-8")),
        _ => {}
    }
    let path = root.join(within(name.strip_prefix("novnc/")?)?);
    let found = tokio::fs::metadata(&path).await.ok()?;
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    Some((tokio::fs::read(&path).await.ok()?.into(), JS))
}

/// The name of a script in noVNC's folders; none for anything else, above all for what leads out of them.
fn within(name: &str) -> Option<&str> {
    let plain = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(fits)
    };
    let (folder, _) = name.split_once('/')?;
    let fits = FOLDERS.contains(&folder) && name.ends_with(".js") && name.split('/').all(plain);
    fits.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_scripts_of_the_viewer_are_served() {
        let root = testkit::temp_dir();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(check(root.path()).await.unwrap_err().contains("apt-get install novnc"));
        write("core/rfb.js", "rfb");
        write("core/secret.txt", "no");
        write("app/ui.js", "no");
        write("core/.hidden.js", "no");
        check(root.path()).await.unwrap();
        let served = |name: &'static str| {
            let root = root.path().to_owned();
            async move { file(&root, name).await.map(|(body, _)| body) }
        };
        assert_eq!(served("novnc/core/rfb.js").await.unwrap(), "rfb");
        assert!(served("console.js").await.unwrap().starts_with(b"//"));
        for name in [
            "novnc/core/secret.txt",
            "novnc/app/ui.js",
            "novnc/core/.hidden.js",
            "novnc/core/../core/rfb.js",
            "novnc/core//rfb.js",
            "novnc/core/%2e%2e/rfb.js",
            "novnc//etc/x.js",
            "novnc/core",
            "core/rfb.js",
            "novnc/core/none.js",
        ] {
            assert!(served(name).await.is_none(), "{name}");
        }
    }
}
