//! Statements: text and arguments that grow together.

/// One argument of a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Any integer or boolean.
    Int(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

macro_rules! value_from {
    ($($t:ty => $v:ident as $conv:expr),* $(,)?) => {
        $(impl From<$t> for Value { fn from(x: $t) -> Self { Value::$v($conv(x)) } })*
    };
}
value_from! {
    i64 => Int as |x| x,
    i32 => Int as i64::from,
    i16 => Int as i64::from,
    u32 => Int as i64::from,
    u16 => Int as i64::from,
    u8 => Int as i64::from,
    bool => Int as i64::from,
    f64 => Real as |x| x,
    String => Text as |x| x,
    &str => Text as str::to_owned,
    &String => Text as |x: &String| x.clone(),
    Vec<u8> => Bytes as |x| x,
    &[u8] => Bytes as <[u8]>::to_vec,
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(x: Option<T>) -> Self {
        x.map_or(Value::Null, Into::into)
    }
}

/// A statement under construction. Values only ever go in as arguments; text comes from the program.
#[derive(Clone, Debug, Default)]
pub struct Sql {
    pub(crate) text: String,
    pub(crate) args: Vec<Value>,
}

impl Sql {
    /// Starts a statement.
    pub fn new(text: &str) -> Self {
        Sql { text: text.to_owned(), args: Vec::new() }
    }

    /// Appends text, which may hold placeholders for arguments bound next.
    #[must_use]
    pub fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Binds the next argument.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Binds several arguments.
    #[must_use]
    pub fn bind_all<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.args.extend(values.into_iter().map(Into::into));
        self
    }

    /// Appends `text` and binds `value` when there is one.
    #[must_use]
    pub fn push_if(self, text: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(v) => self.push(text).bind(v),
            None => self,
        }
    }

    /// Appends `column IN (…)`, padded to a power of two so that the number of distinct statements stays small.
    /// An empty list matches nothing.
    #[must_use]
    pub fn in_list<V: Into<Value>>(mut self, column: &str, values: impl IntoIterator<Item = V>) -> Self {
        let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
        let Some(last) = values.last().cloned() else {
            self.text.push_str("1 = 0");
            return self;
        };
        values.resize(values.len().next_power_of_two(), last);
        self.text.push_str(column);
        self.text.push_str(" IN (?");
        self.text.push_str(&", ?".repeat(values.len() - 1));
        self.text.push(')');
        self.args.append(&mut values);
        self
    }

    /// Appends `(?, ?, …)` for the values: a row of a multi-row INSERT.
    #[must_use]
    pub fn tuple(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        let before = self.args.len();
        self.args.extend(values);
        let n = self.args.len() - before;
        self.text.push('(');
        for i in 0..n {
            self.text.push_str(if i == 0 { "?" } else { ", ?" });
        }
        self.text.push(')');
        self
    }

    /// Appends a condition that `column` contains `needle`, wildcards in it taken literally. Case counts as the column's
    /// content does: search lower-cased columns with a lower-cased needle.
    #[must_use]
    pub fn contains(self, column: &str, needle: &str) -> Self {
        let mut pattern = String::with_capacity(needle.len() + 2);
        pattern.push('%');
        for c in needle.chars() {
            if matches!(c, '%' | '_' | '!') {
                pattern.push('!');
            }
            pattern.push(c);
        }
        pattern.push('%');
        self.push(column).push(" LIKE ? ESCAPE '!'").bind(pattern)
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Sql {
    fn from(text: &str) -> Self {
        Sql::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_padded_to_powers_of_two() {
        let s = Sql::new("SELECT 1 WHERE ").in_list("id", [1i64, 2, 3]);
        assert_eq!(s.text(), "SELECT 1 WHERE id IN (?, ?, ?, ?)");
        assert_eq!(s.args, vec![Value::Int(1), Value::Int(2), Value::Int(3), Value::Int(3)]);
        assert_eq!(Sql::new("").in_list("id", Vec::<i64>::new()).text(), "1 = 0");
    }

    #[test]
    fn wildcards_are_literal() {
        assert_eq!(Sql::new("").contains("n", "a%_!").args, vec![Value::Text("%a!%!_!!%".into())]);
    }
}
