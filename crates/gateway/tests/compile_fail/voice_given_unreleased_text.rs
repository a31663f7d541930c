use portcullis_gateway::Voice;
use portcullis_guard::Progress;

fn shout(voice: &dyn Voice) {
    voice.progress(Progress { done: 1.0, total: None, message: "password=hunter2".into() });
}

fn main() {}
