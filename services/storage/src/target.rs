//! Where a primary storage pool is: its URL, read and checked. Where secondary storage is: [`place`].

pub mod place;

use contract::ApiError;

/// Kinds of pools that hosts know how to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// An NFS export that hosts mount themselves.
    NetworkFilesystem,
    /// A path that administrators have mounted on all hosts of the cluster.
    SharedMountPoint,
}

impl PoolKind {
    /// The word that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            PoolKind::NetworkFilesystem => "NetworkFilesystem",
            PoolKind::SharedMountPoint => "SharedMountPoint",
        }
    }

    /// Whether more may be promised than the device has (enums.json, `Storage.StoragePoolType`).
    pub const fn overcommits(self) -> bool {
        matches!(self, PoolKind::NetworkFilesystem)
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<PoolKind> {
        [PoolKind::NetworkFilesystem, PoolKind::SharedMountPoint].into_iter().find(|k| k.as_str() == word)
    }
}

/// A pool's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How it is reached.
    pub kind: PoolKind,
    /// Server; "localhost" for paths on the hosts.
    pub host: String,
    /// Path on the server or on the hosts.
    pub path: String,
}

/// Schemes that 4.11 knows and no host of Arcus serves yet.
const LATER: &[&str] = &[
    "cifs",
    "smb",
    "rbd",
    "presetup",
    "iscsi",
    "vmfs",
    "clvm",
    "ocfs2",
    "gluster",
    "filesystem",
    "file",
    "lvm",
    "iso",
];

impl Target {
    /// Reads the URL of a pool: `nfs://server/path`, `nfs://server:/path`, `SharedMountPoint://localhost/path`.
    ///
    /// # Errors
    /// 431 when it names no such place.
    pub fn parse(url: &str) -> Result<Target, ApiError> {
        let bad = |why: &str| ApiError::param(format!("{url} is not a valid uri: {why}"));
        let (scheme, rest) =
            url.trim().split_once("://").ok_or_else(|| bad("it has no scheme; give nfs://server/path"))?;
        let scheme = scheme.to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "nfs" => PoolKind::NetworkFilesystem,
            "sharedmountpoint" => PoolKind::SharedMountPoint,
            later if LATER.contains(&later) => {
                return Err(ApiError::unsupported(format!(
                    "Primary storage of type {later} isn't supported yet: give nfs://server/path or \
                     SharedMountPoint://localhost/path"
                )));
            }
            _ => return Err(bad("the scheme must be nfs or SharedMountPoint")),
        };
        let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
        // Credentials never make sense here, and the URL is shown by listStoragePools.
        if authority.contains('@') {
            return Err(bad("it must not carry credentials"));
        }
        let host = authority.trim_end_matches(':');
        let path = normal_path(&path);
        if path.len() < 2 {
            return Err(bad("host or path is null, should be nfs://hostname/path"));
        }
        let host = match kind {
            PoolKind::NetworkFilesystem if host.is_empty() => {
                return Err(bad("host or path is null, should be nfs://hostname/path"));
            }
            PoolKind::NetworkFilesystem => host.to_ascii_lowercase(),
            PoolKind::SharedMountPoint => "localhost".to_owned(),
        };
        Ok(Target { kind, host, path })
    }

    /// What tells it from all other living pools. A shared mount point is only the same within a cluster.
    pub fn key(&self, zone: i64, cluster: Option<i64>) -> String {
        match self.kind {
            PoolKind::NetworkFilesystem => format!("nfs/{}{}", self.host, self.path),
            PoolKind::SharedMountPoint => format!("smp/{zone}/{}{}", cluster.unwrap_or_default(), self.path),
        }
    }

    /// The URL that hosts are told.
    pub fn url(&self) -> String {
        match self.kind {
            PoolKind::NetworkFilesystem => format!("nfs://{}{}", self.host, self.path),
            PoolKind::SharedMountPoint => format!("SharedMountPoint://localhost{}", self.path),
        }
    }
}

/// One slash between parts, none at the end: two spellings of a path are one pool.
fn normal_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfs_urls_are_read_as_simulator_set_ups_write_them() {
        let t = Target::parse("nfs://10.147.28.6:/export/home/sandbox/primary0").unwrap();
        assert_eq!((t.host.as_str(), t.path.as_str()), ("10.147.28.6", "/export/home/sandbox/primary0"));
        assert_eq!(t, Target::parse("NFS://10.147.28.6//export/home/sandbox/primary0/").unwrap());
        assert_eq!(t.key(1, Some(1)), t.key(2, None));
        assert_eq!(t.url(), "nfs://10.147.28.6/export/home/sandbox/primary0");
    }

    #[test]
    fn shared_mount_points_are_one_per_cluster() {
        let t = Target::parse("SharedMountPoint://localhost/mnt/primary1").unwrap();
        assert_eq!(t.kind, PoolKind::SharedMountPoint);
        assert_ne!(t.key(1, Some(1)), t.key(1, Some(2)));
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for url in [
            "",
            "nfs",
            "nfs://",
            "nfs://host",
            "nfs://host/",
            "nfs:///path",
            "ftp://host/x",
            "nfs://u:p@host/x",
            "rbd://a/b",
        ] {
            let e = Target::parse(url).unwrap_err();
            assert_eq!(e.code, 431, "{url}");
        }
    }
}
