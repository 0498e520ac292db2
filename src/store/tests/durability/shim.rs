//! The shim of `shim.c`, ready to be preloaded into a child.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles it into the folder `place`.
pub(crate) fn compile(place: &Path) -> PathBuf {
    let library = place.join("shim.so");
    let source = Path::new("tests/durability/shim.c");
    let mut compiler = Command::new("cc");
    let status = compiler
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(status.expect("a C compiler, cc").success());
    library
}
