//! What is wrong with a file, and where in it.

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open the file: {0}")]
    Open(String),
    /// The bytes are not what the format asks for.
    #[error("byte {offset}: {what}")]
    Malformed {
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// The file is whole but holds something that is not read here.
    #[error("{0}")]
    Unsupported(String),
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
