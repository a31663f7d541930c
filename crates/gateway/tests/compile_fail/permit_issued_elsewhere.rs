fn main() {
    let _permit = portcullis_policy::Permit::issue();
}
