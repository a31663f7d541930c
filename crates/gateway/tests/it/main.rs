//! The gate with a fake tool behind it: every refusal is seen together with its audit record.

mod compile_fail;
mod house;
mod road;
