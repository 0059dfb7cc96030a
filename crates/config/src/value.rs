//! Types that settings are read as.

/// A type that a setting's value can be read as.
pub trait SettingValue: Sized {
    /// Reads the text; `None` stands for a setting that has no value. Gives `None` when the text is of another type.
    fn read(text: Option<&str>) -> Option<Self>;
    /// What an unset setting means.
    fn unset() -> Self;
}

impl SettingValue for i64 {
    fn read(text: Option<&str>) -> Option<Self> {
        text?.trim().parse().ok()
    }
    fn unset() -> Self {
        0
    }
}

impl SettingValue for f64 {
    fn read(text: Option<&str>) -> Option<Self> {
        text?.trim().parse().ok()
    }
    fn unset() -> Self {
        0.0
    }
}

impl SettingValue for bool {
    fn read(text: Option<&str>) -> Option<Self> {
        match text?.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
    fn unset() -> Self {
        false
    }
}

impl SettingValue for String {
    fn read(text: Option<&str>) -> Option<Self> {
        text.map(str::to_owned)
    }
    fn unset() -> Self {
        String::new()
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    fn read(text: Option<&str>) -> Option<Self> {
        match text.map(str::trim) {
            None | Some("") => Some(None),
            Some(_) => T::read(text).map(Some),
        }
    }
    fn unset() -> Self {
        None
    }
}
