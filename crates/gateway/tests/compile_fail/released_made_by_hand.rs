use portcullis_guard::{Redactions, Released};
use portcullis_ports::Output;

fn main() {
    let _sent = Released { inner: Output::text("password=hunter2"), redactions: Redactions::default(), bytes: 0 };
}
