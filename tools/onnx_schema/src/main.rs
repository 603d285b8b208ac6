//! Generates the ONNX messages from the descriptors that protoc writes: `onnx_schema DESCRIPTORS OUT.rs`.

use buffa::Message;
use buffa_codegen::{BytesRepr, CodeGenConfig, PointerRepr};
use buffa_descriptor::generated::descriptor::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, descriptors, out] = &args[..] else { return Err("usage: onnx_schema DESCRIPTORS OUT.rs".into()) };
    let set = FileDescriptorSet::decode_from_slice(&std::fs::read(descriptors)?)?;
    let names: Vec<String> = set.file.iter().filter_map(|file| file.name.clone()).collect();
    let mut config = CodeGenConfig::default();
    config.generate_views = false;
    config.file_per_package = true;
    config.emit_register_fn = false;
    config.generate_with_setters = false;
    // Weights are slices of the file that was read, not copies.
    config.bytes_fields = vec![(".onnx.TensorProto.raw_data".into(), BytesRepr::Bytes)];
    // Most attributes hold none of these: in place they would make each five times as large.
    let rare = ["t", "g", "sparse_tensor"].map(|field| format!(".onnx.AttributeProto.{field}"));
    config.pointer_fields = rare.into_iter().map(|path| (path, PointerRepr::Box)).collect();
    for file in buffa_codegen::generate(&set.file, &names, &config)? {
        std::fs::write(out, file.content)?;
    }
    Ok(())
}
