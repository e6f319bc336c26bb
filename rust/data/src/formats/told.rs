//! The format of one row by itself, for callers that see a table in pieces: no row speaks for another one.

use super::families::FAMILIES;
use super::row::{NAME_COLUMNS, Row};
use super::{Columns, Format};
use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// Columns of feedback, which never stand in a row whose only reply is to be imitated.
const FEEDBACK: [&str; 4] = ["label", "kto_tag", "chosen", "rejected"];

impl Format {
    /// The format of a row by the columns that hold something.
    ///
    /// # Errors
    /// No family fits it, or several do; or it has a column of feedback and would be read without it.
    pub fn of_row(row: &Map<String, Value>, columns: &Columns) -> Result<Self> {
        let held: Map<String, Value> = row
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let named = |error: Error| {
            let shown: Vec<&str> = FAMILIES
                .iter()
                .filter(|family| family.fits(&Row { row: &held, columns }))
                .map(|family| family.name)
                .collect();
            if shown.is_empty() {
                let found: Vec<&str> = held.keys().map(String::as_str).collect();
                return Error::data(format!("{} (the row has {})", error.what, found.join(", "))).fix(NAME_COLUMNS);
            }
            ambiguous(&format!("more than one format fits the row: {}", shown.join(", ")))
        };
        let format = Self::detect_with(std::slice::from_ref(&held), columns).map_err(named)?;
        if format.kind() == "conversation"
            && let Some(column) = format.unused.iter().find(|column| FEEDBACK.contains(&column.as_str()))
        {
            return Err(ambiguous(&format!(
                "the row has column {column:?}, which format {} does not read",
                format.name()
            )));
        }
        Ok(format)
    }

    /// Whether rows with such columns can be of any format: what is wrong with all rows is told before any is read.
    ///
    /// # Errors
    /// They cannot.
    pub fn columns_fit(names: &[String], columns: &Columns) -> Result<()> {
        let row: Map<String, Value> = names.iter().map(|name| (name.clone(), Value::Null)).collect();
        let view = Row { row: &row, columns };
        let has_columns = columns.values().all(|column| row.contains_key(column));
        if has_columns && FAMILIES.iter().any(|family| family.is_possible(&view)) {
            return Ok(());
        }
        Self::detect_with(std::slice::from_ref(&row), columns).map(|_| ())
    }
}

/// The fix stands in the text: a table's `_error` has no other place for it.
fn ambiguous(what: &str) -> Error {
    Error::data(format!("{what}; name the one that is meant with format=")).fix(NAME_COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(row: Value) -> Result<String> {
        Format::of_row(row.as_object().unwrap(), &Columns::new()).map(|format| format.name())
    }

    #[test]
    fn a_row_tells_its_own_format_by_what_it_holds() {
        assert_eq!(
            told(json!({"prompt": "q", "completion": "a", "label": null, "chosen": null})).unwrap(),
            "prompt-completion"
        );
        assert_eq!(told(json!({"prompt": "q", "completion": "a", "label": true})).unwrap(), "unpaired");
        assert_eq!(
            told(json!({"prompt": "q", "completion": null, "chosen": "a", "rejected": "b"})).unwrap(),
            "preference"
        );
        for row in [
            json!({"prompt": "q", "completion": "a", "label": "perhaps"}),
            json!({"prompt": "q", "completion": "a", "rejected": "b"}),
        ] {
            assert!(told(row).unwrap_err().what.ends_with("name the one that is meant with format="));
        }
        let tie = told(json!({"messages": [], "text": "t"})).unwrap_err();
        assert!(tie.what.contains("messages, text; name the one"));
        assert!(told(json!({"a": 1})).unwrap_err().what.contains("the row has a"));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(Format::columns_fit(&names(&["a", "text"]), &Columns::new()).is_ok());
        assert!(Format::columns_fit(&names(&["a"]), &Columns::new()).unwrap_err().what.contains("no known format"));
    }
}
