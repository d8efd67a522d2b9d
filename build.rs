fn main() {
    // cargo-pgrx asks for this by flags of its own, which would make every dependency build twice.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
}
