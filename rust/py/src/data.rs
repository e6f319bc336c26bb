//! The data path as Python sees it.
