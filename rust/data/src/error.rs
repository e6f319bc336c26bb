//! What went wrong, where, why, and how to mend it.

use std::fmt;

/// Which class of error a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file or row that cannot be read.
    Data,
    /// A chat template that cannot be compiled or fails on a conversation.
    Template,
    /// A conversation whose scored tokens cannot be told exactly.
    Mask,
    /// A tokenizer that cannot be loaded.
    Tokenizer,
    /// The fast tokenizer backend was caught at a difference; the work is to be done again.
    Backend,
    /// A limit of the machine: a file that cannot be opened or written.
    Resource,
    /// An argument out of range.
    Usage,
    /// The caller asked to stop.
    Interrupted,
}

/// The one error type of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// The class.
    pub kind: Kind,
    /// What went wrong, in one sentence.
    pub what: String,
    /// `file:line`, or the name of an option.
    pub location: Option<String>,
    /// The cause.
    pub why: Option<String>,
    /// What the user can do.
    pub fix: Option<String>,
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), location: None, why: None, fix: None }
    }

    /// A data error.
    pub fn data(what: impl Into<String>) -> Self {
        Self::new(Kind::Data, what)
    }

    /// With the place, unless it has one already.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Self {
        self.location.get_or_insert_with(|| location.into());
        self
    }

    /// With the cause.
    #[must_use]
    pub fn because(mut self, why: impl ToString) -> Self {
        self.why = Some(why.to_string());
        self
    }

    /// With the cure.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// A file that cannot be opened, read or written.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Kind::Resource, what)
            .at(path.display().to_string())
            .because(error)
            .fix("check the path, its permissions and the free space")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}", self.what)?;
        if let Some(why) = &self.why {
            write!(f, " ({why})")?;
        }
        Ok(())
    }
}
