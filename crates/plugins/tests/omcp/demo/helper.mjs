// Loaded with the plugin, and reached by no signature.
export const nothing = () => [];
