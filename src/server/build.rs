//! Looks again at the web client when it was built anew: `web/dist` becomes part of the program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../web/dist");
}
