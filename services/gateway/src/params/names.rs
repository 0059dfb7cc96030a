//! Parameter names: lower-cased, and `name[index].key` gathered into maps.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use contract::ApiError;

use super::is_control;
use crate::catalogue::RequestPlan;
use crate::query::Query;

/// The entries of a map parameter by their index: sub-keys and values.
pub type MapEntries<'a> = BTreeMap<i32, Vec<(&'a str, &'a str)>>;

/// The parameters of a request by lower-case name.
#[derive(Default)]
pub struct Given<'a> {
    values: HashMap<Cow<'a, str>, Value<'a>>,
}

/// What was given under a name.
pub enum Value<'a> {
    /// `name=value`
    Plain(&'a str),
    /// `name[index].key=value`
    Map(MapEntries<'a>),
}

impl<'a> Given<'a> {
    /// Reads the names.
    ///
    /// # Errors
    /// 430 for a second bracket, an index that is no number, and a missing `.key`.
    pub fn of(query: &'a Query) -> Result<Given<'a>, ApiError> {
        let mut given = Given { values: HashMap::with_capacity(query.pairs().len()) };
        for (name, value) in query.pairs() {
            match name.find('[') {
                // As in 4.11, a name that begins with the bracket is a plain one.
                None => given.plain(lower(name), value),
                Some(0) if !name.get(1..).unwrap_or_default().contains('[') => given.plain(lower(name), value),
                Some(at) => {
                    let (map, index, key) = split(name, at).ok_or_else(|| malformed(name))?;
                    given.entry(name, lower(map), index, key, value)?;
                }
            }
        }
        Ok(given)
    }

    fn plain(&mut self, name: Cow<'a, str>, value: &'a str) {
        self.values.insert(name, Value::Plain(value));
    }

    fn entry(
        &mut self,
        whole: &str,
        map: Cow<'a, str>,
        index: i32,
        key: &'a str,
        value: &'a str,
    ) -> Result<(), ApiError> {
        match self.values.entry(map).or_insert_with(|| Value::Map(MapEntries::new())) {
            Value::Map(entries) => {
                let entry = entries.entry(index).or_default();
                entry.retain(|(known, _)| *known != key);
                entry.push((key, value));
                Ok(())
            }
            Value::Plain(_) => Err(malformed(whole)),
        }
    }

    /// What was given under this lower-case name.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.values.get(name)
    }

    /// Whether anything was given under this name.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The names that a request message doesn't have, sorted.
    pub fn unknown(&self, plan: &RequestPlan) -> Vec<String> {
        let mut names: Vec<String> = self
            .values
            .keys()
            .filter(|name| plan.find(name).is_none() && !is_control(name))
            .map(|name| name.to_string())
            .collect();
        names.sort_unstable();
        names
    }
}

/// Lower-cases a name; most are lower already.
fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
        Cow::Owned(name.to_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn split(name: &str, open: usize) -> Option<(&str, i32, &str)> {
    let (map, rest) = name.split_at_checked(open)?;
    let rest = rest.strip_prefix('[')?;
    if rest.contains('[') {
        return None;
    }
    let (index, tail) = rest.split_once(']')?;
    if tail.contains(']') {
        return None;
    }
    Some((map, index.parse().ok()?, tail.split_once('.')?.1))
}

fn malformed(name: &str) -> ApiError {
    ApiError::malformed(format!(
        "Unable to decode parameter {name}; if specifying an object array, please use parameter[index].field=XXX, e.g. \
         userGroupList[0].group=httpGroup"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(raw: &str) -> u16 {
        Given::of(&Query::read(raw, b"").unwrap_or_default()).map_or_else(|e| e.code, |_| 200)
    }

    #[test]
    fn map_names_are_read_or_refused() {
        for good in
            ["tags[0].key=a&tags[0].value=b", "Tags[-1].a.b=c", "[x=1", "a.b=1", "tags[2147483647].k=v", "t[0]x.k=v"]
        {
            assert_eq!(code(good), 200, "{good}");
        }
        for bad in [
            "tags[0]=a",
            "tags[].key=a",
            "tags[x].key=a",
            "tags[0][1].key=a",
            "tags[0]].key=a",
            "tags[0.key=a",
            "tags[2147483648].k=v",
            "[a[0].k=v",
            "tags=1&tags[0].key=a",
        ] {
            assert_eq!(code(bad), 430, "{bad}");
        }
    }

    #[test]
    fn map_names_are_lower_cased_and_keys_are_kept() {
        let query = Query::read("Details[1].cpuNumber=2&details[0].memory=5&details[1].cpuNumber2=3", b"").unwrap();
        let given = Given::of(&query).unwrap();
        let Some(Value::Map(entries)) = given.get("details") else { panic!("no map") };
        let flat: Vec<_> = entries.iter().map(|(i, e)| (*i, e.clone())).collect();
        assert_eq!(flat, [(0, vec![("memory", "5")]), (1, vec![("cpuNumber", "2"), ("cpuNumber2", "3")])]);
    }
}
