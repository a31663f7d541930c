//! portcullis
fn main(){}
