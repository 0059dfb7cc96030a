//! Where secondary storage is.

use super::{PoolKind, Target};
use contract::ApiError;
use std::collections::BTreeMap;

/// An NFS export, `nfs://server/path`.
pub const NFS: &str = "NFS";
/// A bucket of an S3 service.
pub const S3: &str = "S3";
/// A folder of the hosts, `file:///folder`: local, or mounted there by somebody else. Ours; 4.11 has no such provider.
pub const DIRECTORY: &str = "Directory";

/// What a bucket's details may be. The last six are those of 4.11's client: ours has its own, so they are checked and change
/// nothing.
const S3_DETAILS: &[&str] = &[
    "accesskey",
    "secretkey",
    "endpoint",
    "bucket",
    "usehttps",
    "region",
    "s3signer",
    "connectiontimeout",
    "maxerrorretry",
    "sockettimeout",
    "connectionttl",
    "usetcpkeepalive",
];
/// Those of them that hosts are told.
const S3_TOLD: &[&str] = &["accesskey", "secretkey", "endpoint", "usehttps", "region"];

/// An image store's place.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// Who provides it.
    pub provider: &'static str,
    /// The URL that hosts are told, and that is shown: without secrets.
    pub url: String,
    /// "nfs", "file", "https", "http".
    pub protocol: String,
    /// What tells it from all other stores of its zone.
    pub key: String,
    /// What hosts are told and nobody is shown.
    pub secrets: BTreeMap<String, String>,
}

impl Place {
    /// Reads where a store is.
    ///
    /// # Errors
    /// 431 for a provider that isn't there, and for what names no place of its.
    pub fn of(provider: &str, url: Option<&str>, details: BTreeMap<String, String>) -> Result<Place, ApiError> {
        let known = [NFS, S3, DIRECTORY].into_iter().find(|p| p.eq_ignore_ascii_case(provider));
        match known {
            Some(S3) => s3(url, details),
            Some(provider) if !details.is_empty() => {
                let text = format!("an image store of provider {provider} takes no details: leave them out");
                Err(ApiError::unsupported(text))
            }
            Some(NFS) => nfs(url),
            Some(_) => directory(url),
            None => Err(ApiError::unsupported(format!(
                "can't find image store provider: {provider}; there are {NFS}, {S3} and {DIRECTORY}"
            ))),
        }
    }

    /// Whether only the hosts of one zone reach it.
    pub fn of_a_zone(&self) -> bool {
        self.provider != S3
    }
}

fn nfs(url: Option<&str>) -> Result<Place, ApiError> {
    let url = url.ok_or_else(|| ApiError::param("an NFS image store needs a url: nfs://server/path"))?;
    let target = Target::parse(url)?;
    if target.kind != PoolKind::NetworkFilesystem {
        return Err(ApiError::param(format!("{url} is not a valid uri: an NFS image store is at nfs://server/path")));
    }
    Ok(Place {
        provider: NFS,
        url: url.to_owned(),
        protocol: "nfs".to_owned(),
        key: target.key(0, None),
        secrets: BTreeMap::new(),
    })
}

fn directory(url: Option<&str>) -> Result<Place, ApiError> {
    let url = url.ok_or_else(|| ApiError::param("a Directory image store needs a url: file:///folder"))?;
    let bad = |why: &str| ApiError::param(format!("{url} is not a valid uri: {why}"));
    let path = match url.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => path,
        _ => return Err(bad("a Directory image store is at file:///folder")),
    };
    if !path.starts_with('/') {
        return Err(bad("it names a host: give file:///folder"));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || path.contains(['?', '#', '%', '\0']) {
        return Err(bad("give the folder as it is, from the root and not the root itself"));
    }
    let path = format!("/{}", parts.join("/"));
    Ok(Place {
        provider: DIRECTORY,
        url: format!("file://{path}"),
        protocol: "file".to_owned(),
        key: format!("file{path}"),
        secrets: BTreeMap::new(),
    })
}

fn s3(url: Option<&str>, mut details: BTreeMap<String, String>) -> Result<Place, ApiError> {
    if let Some(unknown) = details.keys().find(|k| !S3_DETAILS.contains(&k.as_str())) {
        return Err(ApiError::param(format!(
            "an S3 image store has no detail {unknown}; there are {}",
            S3_DETAILS.join(", ")
        )));
    }
    for needed in ["accesskey", "secretkey", "bucket"] {
        if details.get(needed).is_none_or(|v| v.trim().is_empty()) {
            return Err(ApiError::param(format!("an S3 image store needs the detail {needed}")));
        }
    }
    let https = match details.get("usehttps").map(|v| v.to_ascii_lowercase()).as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return Err(ApiError::param(format!("usehttps must be true or false, not {other}"))),
    };
    if let Some(signer) = details.get("s3signer")
        && !signer.eq_ignore_ascii_case("AWSS3V4SignerType")
    {
        return Err(ApiError::unsupported(format!("s3signer {signer} isn't spoken: AWSS3V4SignerType is")));
    }
    for number in ["connectiontimeout", "maxerrorretry", "sockettimeout", "connectionttl"] {
        if details.get(number).is_some_and(|v| v.parse::<u32>().is_err()) {
            return Err(ApiError::param(format!("{number} must be a number, and not below 0")));
        }
    }
    let bucket = details.get("bucket").cloned().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) || bucket.starts_with(['-', '.']) {
        return Err(ApiError::param(format!("{bucket} can't be the name of a bucket")));
    }
    let endpoint = details.get("endpoint").cloned().unwrap_or_default();
    let bare = endpoint.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
    if bare.contains(['/', '@', '?', '#', ' ']) {
        return Err(ApiError::param(format!("endpoint {endpoint} must be a host, perhaps with a port")));
    }
    if url.is_some_and(|u| u != format!("s3://{bucket}")) {
        return Err(ApiError::param("an S3 image store is where its details say: leave url out"));
    }
    details.retain(|key, _| S3_TOLD.contains(&key.as_str()));
    if !bare.is_empty() {
        // The protocol is usehttps' matter.
        details.insert("endpoint".to_owned(), bare.clone());
    }
    details.insert("usehttps".to_owned(), https.to_string());
    Ok(Place {
        provider: S3,
        url: format!("s3://{bucket}"),
        protocol: if https { "https" } else { "http" }.to_owned(),
        key: format!("s3/{bare}/{bucket}"),
        secrets: details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn places_are_read() {
        let nfs = Place::of("nfs", Some("nfs://10.0.0.1:/a//b/"), BTreeMap::new()).unwrap();
        assert_eq!((nfs.provider, nfs.key.as_str(), nfs.of_a_zone()), (NFS, "nfs/10.0.0.1/a/b", true));
        let dir = Place::of("directory", Some("file:///srv//secondary/"), BTreeMap::new()).unwrap();
        assert_eq!((dir.url.as_str(), dir.protocol.as_str()), ("file:///srv/secondary", "file"));
        let details = map(&[
            ("accesskey", "a"),
            ("secretkey", "s"),
            ("bucket", "images"),
            ("endpoint", "http://h:9000/"),
            ("usehttps", "false"),
            ("maxerrorretry", "3"),
        ]);
        let s3 = Place::of("S3", None, details).unwrap();
        assert_eq!(
            (s3.url.as_str(), s3.protocol.as_str(), s3.key.as_str()),
            ("s3://images", "http", "s3/h:9000/images")
        );
        assert_eq!(
            s3.secrets,
            map(&[("accesskey", "a"), ("secretkey", "s"), ("endpoint", "h:9000"), ("usehttps", "false")])
        );
        assert!(!s3.of_a_zone());
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let good = [("accesskey", "a"), ("secretkey", "s"), ("bucket", "images")];
        let with = |more: &[(&str, &str)]| map(&[&good[..], more].concat());
        for (provider, url, details) in [
            ("Swift", Some("http://h/"), map(&[])),
            ("NFS", None, map(&[])),
            ("NFS", Some("file:///x"), map(&[])),
            ("NFS", Some("nfs://h/x"), map(&[("a", "b")])),
            ("Directory", Some("file://host/x"), map(&[])),
            ("Directory", Some("file:///"), map(&[])),
            ("Directory", Some("file:///a/../etc"), map(&[])),
            ("Directory", Some("nfs://h/x"), map(&[])),
            ("S3", None, map(&good[..2])),
            ("S3", None, with(&[("usehttps", "maybe")])),
            ("S3", None, with(&[("s3signer", "S3SignerType")])),
            ("S3", None, with(&[("sockettimeout", "-1")])),
            ("S3", None, with(&[("colour", "blue")])),
            ("S3", None, with(&[("endpoint", "h/path")])),
            ("S3", None, with(&[("bucket", "No")])),
            ("S3", Some("nfs://h/x"), with(&[])),
        ] {
            assert_eq!(Place::of(provider, url, details).map(|_| ()).unwrap_err().code, 431, "{provider} {url:?}");
        }
    }
}
