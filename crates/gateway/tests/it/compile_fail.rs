//! What must not compile: reaching a backend without a permit, sending what was not released.

#[test]
fn the_types_close_the_second_door() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
