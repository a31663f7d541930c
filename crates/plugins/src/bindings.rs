//! What wasmtime makes of `wit/plugin.wit`. Guards that generated code stays in one place. Must not hold a line of our own.

#![allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    imports: {
        "portcullis:plugin/http.send": async | trappable,
        "portcullis:plugin/secrets.read": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});
