//! There is no second door: what would reach a backend without a permit, or send what was not released, does not compile.
//! Each refusal stands beside the same lines done rightly, which compile, so that nothing but the named fault is refused.
//!
//! A permit comes from the policies and from nowhere else; it has no public fields and no public way to be issued
//! (E0451, E0624).
//!
//! ```
//! fn holds(permit: portcullis_policy::Permit) -> portcullis_policy::Permit {
//!     permit
//! }
//! ```
//! ```compile_fail
//! fn holds(permit: portcullis_policy::Permit) -> portcullis_policy::Permit {
//!     portcullis_policy::Permit { inner: unreachable!() }
//! }
//! ```
//! ```
//! use portcullis_policy::Permit;
//! let _ = Permit::purpose;
//! ```
//! ```compile_fail
//! use portcullis_policy::Permit;
//! let _ = Permit::issue;
//! ```
//!
//! A tool cannot be run without one (E0061).
//!
//! ```
//! use portcullis_policy::Permit;
//! use portcullis_ports::{Arguments, NoExchange, Tool};
//! async fn door(tool: &dyn Tool, permit: &Permit) {
//!     let _ = tool.run(permit, Arguments::default(), &NoExchange).await;
//! }
//! ```
//! ```compile_fail
//! use portcullis_policy::Permit;
//! use portcullis_ports::{Arguments, NoExchange, Tool};
//! async fn door(tool: &dyn Tool, permit: &Permit) {
//!     let _ = tool.run(Arguments::default(), &NoExchange).await;
//! }
//! ```
//!
//! Neither can a source be asked (E0061).
//!
//! ```
//! use portcullis_model::TimeWindow;
//! use portcullis_policy::Permit;
//! use portcullis_ports::Source;
//! async fn door(source: &dyn Source, permit: &Permit, window: TimeWindow) {
//!     let _ = source.services(permit, window).await;
//! }
//! ```
//! ```compile_fail
//! use portcullis_model::TimeWindow;
//! use portcullis_policy::Permit;
//! use portcullis_ports::Source;
//! async fn door(source: &dyn Source, permit: &Permit, window: TimeWindow) {
//!     let _ = source.services(window).await;
//! }
//! ```
//!
//! What is said to a caller was released: the fields of what is released are private (E0451), and a voice takes nothing else
//! (E0308).
//!
//! ```
//! use portcullis_guard::{Progress, Redactions, Released};
//! fn shout(voice: &dyn portcullis_gateway::Voice, said: Released<Progress>) {
//!     voice.progress(said);
//! }
//! ```
//! ```compile_fail
//! use portcullis_guard::{Progress, Redactions, Released};
//! fn shout(voice: &dyn portcullis_gateway::Voice, said: Progress) {
//!     voice.progress(said);
//! }
//! ```
//! ```compile_fail
//! use portcullis_guard::{Progress, Redactions, Released};
//! fn shout(voice: &dyn portcullis_gateway::Voice, said: Progress) {
//!     voice.progress(Released { inner: said, redactions: Redactions::default(), bytes: 0, ..unreachable!() });
//! }
//! ```
