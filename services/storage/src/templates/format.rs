//! Formats of images, and what hosts of which hypervisor take.

use contract::ApiError;

/// Formats that can be registered (enums.json, `Storage.ImageFormat`), with what a URL's path may end with.
const FORMATS: &[(&str, &[&str])] = &[
    ("QCOW2", &["qcow2"]),
    ("RAW", &["img", "raw"]),
    ("VHD", &["vhd"]),
    ("VHDX", &["vhdx"]),
    ("OVA", &["ova"]),
    ("VMDK", &["vmdk"]),
    ("TAR", &["tar"]),
    ("ISO", &["iso"]),
];
/// How a file may be packed (TPL-035).
const PACKED: &[&str] = &["", ".zip", ".bz2", ".gz"];

/// The hypervisors of 4.11 that templates are for.
const HYPERVISORS: &[&str] = &["XenServer", "KVM", "VMware", "Hyperv", "BareMetal", "Simulator", "Ovm", "Ovm3", "LXC"];

/// The formats that hosts of a hypervisor can run, where that is known.
fn runs(hypervisor: &str) -> Option<&'static [&'static str]> {
    Some(match hypervisor {
        "KVM" => &["QCOW2", "RAW"],
        "XenServer" => &["VHD"],
        "VMware" => &["OVA"],
        "Hyperv" => &["VHD", "VHDX"],
        "LXC" => &["TAR"],
        "Ovm" | "Ovm3" => &["RAW"],
        _ => return None,
    })
}

/// The hypervisor that a word names, as it is written.
///
/// # Errors
/// 431 for an unknown one.
pub fn hypervisor(word: &str) -> Result<&'static str, ApiError> {
    HYPERVISORS.iter().copied().find(|h| h.eq_ignore_ascii_case(word)).ok_or_else(|| {
        ApiError::param(format!(
            "Hypervisor Type: {word} is invalid. Supported Hypervisor types are {}",
            HYPERVISORS.join(", ")
        ))
    })
}

/// The format that a word names, for a template of a hypervisor.
///
/// # Errors
/// 431 for an unknown one, and for one that its hosts can't run.
pub fn format(word: &str, hypervisor: &str) -> Result<&'static str, ApiError> {
    let known: Vec<&str> = FORMATS.iter().map(|(f, _)| *f).filter(|f| *f != "ISO").collect();
    let format = known.iter().copied().find(|f| f.eq_ignore_ascii_case(word)).ok_or_else(|| {
        let list = known.join(", ");
        ApiError::param(format!("Image format: {word} is incorrect. Supported formats are {list}"))
    })?;
    match runs(hypervisor) {
        Some(runs) if !runs.contains(&format) => Err(ApiError::unsupported(format!(
            "{hypervisor} hosts don't run images of format {format}: convert it to {}",
            runs.join(" or ")
        ))),
        _ => Ok(format),
    }
}

/// Makes sure that the end of a URL's path fits the format.
///
/// # Errors
/// 431 when it doesn't.
pub fn check_path(path: &str, format: &str) -> Result<(), ApiError> {
    let path = path.to_ascii_lowercase();
    let ends = FORMATS.iter().find(|(f, _)| *f == format).map_or(&[] as &[&str], |(_, ends)| ends);
    let fits = |end: &&str| PACKED.iter().any(|packed| path.ends_with(&format!(".{end}{packed}")));
    if ends.iter().any(fits) {
        return Ok(());
    }
    let format = format.to_lowercase();
    Err(ApiError::param(format!(
        "Please specify a valid URL. URL:{path} is an invalid for the format {format}: it must end with .{}, perhaps \
         followed by .zip, .bz2 or .gz",
        ends.join(" or .")
    )))
}

/// Makes sure that a checksum can be one: MD5, or with its algorithm before it.
///
/// # Errors
/// 431 when it can't.
pub fn check_sum(sum: &str) -> Result<(), ApiError> {
    let (name, digits) = match sum.strip_prefix('{') {
        None => ("MD5", sum),
        Some(rest) => rest.split_once('}').ok_or_else(|| ApiError::param(format!("{sum} is no checksum")))?,
    };
    let length = match name.to_ascii_uppercase().as_str() {
        "MD5" => 32,
        "SHA-1" => 40,
        "SHA-224" => 56,
        "SHA-256" => 64,
        "SHA-384" => 96,
        "SHA-512" => 128,
        _ => {
            return Err(ApiError::param(format!(
                "checksum algorithm {name} isn't known: MD5, SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512 are"
            )));
        }
    };
    if digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(ApiError::param(format!("a checksum of {name} has {length} hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_fit_formats() {
        for (path, format) in [
            ("/a/x.qcow2", "QCOW2"),
            ("/x.QCOW2.gz", "QCOW2"),
            ("/x.vhd.bz2", "VHD"),
            ("/x.img.zip", "RAW"),
            ("/x.raw", "RAW"),
            ("/x.iso", "ISO"),
        ] {
            check_path(path, format).unwrap();
        }
        for (path, format) in
            [("/x.vhd", "QCOW2"), ("/x", "RAW"), ("/x.qcow2.xz", "QCOW2"), ("/qcow2", "QCOW2"), ("", "ISO")]
        {
            assert_eq!(check_path(path, format).unwrap_err().code, 431, "{path}");
        }
    }

    #[test]
    fn words_are_known() {
        assert_eq!(hypervisor("kvm").unwrap(), "KVM");
        assert!(hypervisor("Foo").unwrap_err().text.starts_with("Hypervisor Type: Foo is invalid"));
        assert_eq!(format("qcow2", "KVM").unwrap(), "QCOW2");
        assert_eq!(format("vhd", "Simulator").unwrap(), "VHD");
        assert_eq!(
            [format("vhd", "KVM"), format("iso", "KVM"), format("x", "KVM")].map(|r| r.unwrap_err().code),
            [431; 3]
        );
    }

    #[test]
    fn checksums_have_their_length() {
        check_sum(&"a".repeat(32)).unwrap();
        check_sum(&format!("{{sha-256}}{}", "0".repeat(64))).unwrap();
        for bad in ["", "abc", "{SHA-256}00", "{CRC}00", "{SHA-1", &"g".repeat(32)] {
            assert_eq!(check_sum(bad).unwrap_err().code, 431, "{bad}");
        }
    }
}
