//! Lets the test binary find libtorch, and says for which machine it was built.

use std::env;

fn main() {
    let lib = env::var("DEP_GRISTMILL_TRAINER_LIBTORCH_LIB")
        .expect("the trainer's build script says where libtorch's libraries are");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    let target = env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=GRISTMILL_TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
