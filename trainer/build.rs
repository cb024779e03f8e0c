//! Compiles the C++ shim against the headers of the libtorch that `torch-sys` found.
//!
//! Link arguments do not travel from a library to the binaries of other packages, so libtorch's folder is
//! also passed on as metadata: a package that links this one reads `DEP_GRISTMILL_TRAINER_LIBTORCH_LIB`
//! in its own build script and sets its own run path.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports libtorch's folder");
    let lib = Path::new(&lib).canonicalize().unwrap_or_else(|_| PathBuf::from(&lib));
    let include = lib.parent().expect("libtorch's `lib` lies in a folder").join("include");

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("src/torch/shim.cpp")
        .file("src/torch/recompute.cpp")
        .file("src/torch/group.cpp")
        // The wheel has c10d with Gloo, but not Gloo's headers.
        .include("src/torch")
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        // Their headers are not ours to warn about.
        .flag("-isystem")
        .flag(include.to_str().expect("libtorch's path is UTF-8"))
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").to_str().expect("libtorch's path is UTF-8"))
        .flag("-Wno-unused-parameter")
        .opt_level(2)
        .compile("gristmill_torch_shim");

    println!("cargo::rustc-link-search=native={}", lib.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo::metadata=libtorch_lib={}", lib.display());
    for path in ["guarded.h", "shim.cpp", "recompute.cpp", "group.cpp", "gloo"] {
        println!("cargo::rerun-if-changed=src/torch/{path}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
