//! conformance-server
fn main(){}
