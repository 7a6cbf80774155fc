//! The shared libraries that ONNX Runtime's GPU providers need, and which of them the system's loader does not find.
//!
//! ONNX Runtime's own error names at most the first one that is missing.

use std::path::Path;

use object::read::Object;
use object::read::elf::ElfFile64;

use crate::config::Device;

/// cuDNN's compiler for kernels at run time needs it; nothing links it.
const NVRTC: &str = "libnvrtc.so.13";

/// The driver's own, which no CUDA package brings.
const DRIVER: &str = "libcuda.so";

/// Sources of NVIDIA's other libraries: what their names begin with, the Debian package from NVIDIA's repository, the wheel.
const SOURCES: [(&str, &str, &str); 8] = [
    ("libcudart", "cuda-cudart-13-0", "nvidia-cuda-runtime"),
    ("libcublas", "libcublas-13-0", "nvidia-cublas"),
    ("libcurand", "libcurand-13-0", "nvidia-curand"),
    ("libcufft", "libcufft-13-0", "nvidia-cufft"),
    ("libnvrtc", "cuda-nvrtc-13-0", "nvidia-cuda-nvrtc"),
    ("libcudnn", "libcudnn9-cuda-13", "nvidia-cudnn-cu13"),
    ("libnvinfer", "libnvinfer10", "tensorrt"),
    ("libnvonnxparser", "libnvonnxparsers10", "tensorrt"),
];

/// The libraries that a device's provider needs, by their names as the loader knows them; none for a CPU.
///
/// The libraries that it links are read from the provider's file, which lies beside `onnxruntime`. The CUDA provider loads cuDNN only when it
/// first computes a convolution, and cuDNN its own parts; these are added.
///
/// # Errors
/// A text, where the provider's file is not there or cannot be read.
pub fn needed(onnxruntime: &Path, device: Device) -> Result<Vec<String>, String> {
    let files: &[&str] = match device {
        Device::Cpu => return Ok(Vec::new()),
        Device::Cuda | Device::Auto => &["libonnxruntime_providers_cuda.so"],
        // It gives the CUDA provider what it cannot run itself.
        Device::Tensorrt => &["libonnxruntime_providers_tensorrt.so", "libonnxruntime_providers_cuda.so"],
    };
    let folder = onnxruntime.parent().unwrap_or(Path::new(""));
    let mut names: Vec<String> = Vec::new();
    for file in files {
        names.extend(linked(&folder.join(file))?);
    }
    names.extend(ort::ep::cuda::CUDNN_DYLIBS.iter().map(|name| (*name).to_owned()));
    names.push(NVRTC.to_owned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// Those of [`needed`] that the system's loader does not find, or the provider's file where that is missing itself.
pub fn missing(onnxruntime: &Path, device: Device) -> Vec<String> {
    match needed(onnxruntime, device) {
        Ok(names) => names.into_iter().filter(|name| !loads(name)).collect(),
        Err(why) => vec![why],
    }
}

/// The source of a library, in words for people.
pub fn source(name: &str) -> Option<String> {
    if name.starts_with(DRIVER) {
        return Some("the NVIDIA driver, 580 or newer".into());
    }
    let (_, package, wheel) = SOURCES.iter().find(|(begin, ..)| name.starts_with(begin))?;
    Some(format!("Debian package {package}, or Python wheel {wheel}"))
}

/// The libraries that a shared library links (DT_NEEDED of its dynamic section).
fn linked(file: &Path) -> Result<Vec<String>, String> {
    let content = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let wrong = |error| format!("{} is no shared library: {error}", file.display());
    let elf = ElfFile64::<object::Endianness>::parse(content.as_slice()).map_err(wrong)?;
    let mut names = Vec::new();
    for library in elf.import_libraries().map_err(wrong)? {
        names.push(String::from_utf8_lossy(library.map_err(wrong)?.name()).into_owned());
    }
    Ok(names)
}

fn loads(name: &str) -> bool {
    // SAFETY: loading a library runs its initializers. These are the libraries that ONNX Runtime loads into this process to
    // run on the device that is configured, or what those load; nothing is called in them.
    match unsafe { libloading::Library::new(name) } {
        Ok(library) => {
            // Kept loaded, so that no finalizer runs while ONNX Runtime uses the same library.
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_links_is_read_from_its_file() {
        // The test program itself links the C library.
        let program = std::env::current_exe().expect("this program");
        let linked = linked(&program).expect("an ELF file");
        assert!(linked.iter().any(|name| name.starts_with("libc.so")), "{linked:?}");
        assert!(linked.iter().all(|name| loads(name)), "{linked:?}");
        assert!(!loads("libnowhere.so.13"));
    }

    #[test]
    fn a_provider_that_is_not_there_or_no_library_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("libonnxruntime.so");
        let provider = folder.path().join("libonnxruntime_providers_cuda.so");
        let said = missing(&library, Device::Cuda);
        assert!(said.len() == 1 && said[0].contains("libonnxruntime_providers_cuda.so"), "{said:?}");
        std::fs::write(&provider, "no library").expect("written");
        let said = missing(&library, Device::Cuda);
        assert!(said.len() == 1 && said[0].contains("is no shared library"), "{said:?}");
        assert!(missing(&library, Device::Cpu).is_empty());
    }

    #[test]
    fn each_missing_library_is_named_and_where_it_comes_from() {
        // A provider that links what this program links: all that is missing is then what is loaded at run time.
        let folder = tempfile::tempdir().expect("a folder");
        let program = std::env::current_exe().expect("this program");
        std::fs::copy(program, folder.path().join("libonnxruntime_providers_cuda.so")).expect("copied");
        let library = folder.path().join("libonnxruntime.so");
        let needed = needed(&library, Device::Cuda).expect("needed libraries");
        for name in ["libcudnn.so.9", "libcudnn_ops.so.9", NVRTC] {
            assert_eq!(needed.iter().filter(|needed| *needed == name).count(), 1, "{needed:?}");
            assert!(source(name).is_some(), "{name}");
            let missing = missing(&library, Device::Cuda);
            assert_eq!(missing.iter().any(|missing| missing == name), !loads(name), "{missing:?}");
        }
        assert!(source("libcuda.so.1").is_some_and(|source| source.contains("driver")));
        assert_eq!(source("libc.so.6"), None);
    }
}
