//! What was measured beside what is aimed at.

/// Figures in the order they were measured.
#[derive(Default)]
pub(crate) struct Figures(Vec<(String, f64, String, bool)>);

impl Figures {
    /// More is better.
    pub(crate) fn at_least(&mut self, name: &str, measured: f64, aim: f64) {
        self.0.push((name.to_owned(), measured, format!(">= {aim}"), measured >= aim));
    }

    /// Less is better.
    pub(crate) fn at_most(&mut self, name: &str, measured: f64, aim: f64) {
        self.0.push((name.to_owned(), measured, format!("<= {aim}"), measured <= aim));
    }

    /// One line each.
    pub(crate) fn print(&self) {
        println!("\nfigures (the aims are for 10 million log records on two cores):");
        for (name, measured, aim, reached) in &self.0 {
            println!("  {} {name}: {measured:.1} (aim {aim})", if *reached { "reached    " } else { "NOT REACHED" });
        }
    }
}
