use portcullis_ports::{Arguments, NoExchange, Tool};

async fn second_door(tool: &dyn Tool) {
    let _ = tool.run(Arguments::default(), &NoExchange).await;
}

fn main() {}
