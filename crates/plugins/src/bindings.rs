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

/// The part that is there in some components only: telling what a writing tool would do.
pub mod foresight {
    wasmtime::component::bindgen!({
        path: "wit",
        inline: "package portcullis:host; world foresight { export portcullis:plugin/preview@1.1.0; }",
        world: "foresight",
        with: { "portcullis:plugin/types": crate::bindings::portcullis::plugin::types },
        exports: { default: async },
        require_store_data_send: true,
    });
}
