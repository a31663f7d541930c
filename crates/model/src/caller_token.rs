//! The token a caller proved itself with, on its way from the door to the one who may exchange it. Guards that nothing on
//! that way can read it: whoever has it in hands has a closed box. Must not print, compare or serialise what is inside.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A closed box with a caller's token. Only a crate that knows the type inside can open it, and that type is known only to
/// the crate that verified the token: rooms never import each other.
#[derive(Clone)]
pub struct CallerToken(Arc<dyn Any + Send + Sync>);

impl CallerToken {
    /// Puts a token into a box.
    pub fn seal<T: Any + Send + Sync>(token: T) -> Self {
        Self(Arc::new(token))
    }

    /// What is inside, for who knows its type.
    pub fn open<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Token(&'static str);

    #[test]
    fn only_who_knows_the_type_opens_it_and_it_never_prints() {
        let token = CallerToken::seal(Token("hunter2"));
        assert_eq!(token.open::<Token>().unwrap().0, "hunter2");
        assert!(token.open::<String>().is_none() && token.open::<&str>().is_none());
        assert_eq!(format!("{token:?}"), "CallerToken(***)");
    }
}
