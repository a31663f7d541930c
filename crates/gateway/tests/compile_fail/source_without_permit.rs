use portcullis_model::TimeWindow;
use portcullis_ports::Source;

async fn second_door(source: &dyn Source, window: TimeWindow) {
    let _ = source.services(window).await;
}

fn main() {}
