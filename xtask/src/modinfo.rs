//! Reads the dependencies of kernel modules, and computes the order in which modules must be
//! loaded.
//!
//! Kernel packages have no `modules.dep`, because it is made at installation. So the dependencies
//! are read from the `.modinfo` section of each module. Limit: only 64-bit little-endian ELF files
//! are read.

use anyhow::{Context, bail};

/// The bytes of `.modinfo`: `key=value` strings, each terminated by a NUL.
fn section(elf: &[u8]) -> Option<&[u8]> {
    let word = |offset: usize| Some(u16::from_le_bytes(elf.get(offset..offset + 2)?.try_into().ok()?));
    let long = |offset: usize| {
        let bytes = elf.get(offset..offset.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size) = (long(0x28)?, usize::from(word(0x3a)?));
    if headers > elf.len() {
        return None;
    }
    let header = |index: u16| headers + size * usize::from(index);
    // In a section header, the offset of the name is at 0, the offset of the contents at 24, their
    // size at 32.
    let contents = |header: usize| {
        let start = long(header + 24)?;
        elf.get(start..start.checked_add(long(header + 32)?)?)
    };
    let names = contents(header(word(0x3e)?))?;
    (0..word(0x3c)?).find_map(|index| {
        let header = header(index);
        let name = u32::from_le_bytes(elf.get(header..header + 4)?.try_into().ok()?);
        let name = names.get(usize::try_from(name).ok()?..)?;
        if name.starts_with(b".modinfo\0") { contents(header) } else { None }
    })
}

/// The names of the modules that the module in `elf` needs, with `_` instead of `-`.
pub(crate) fn depends(elf: &[u8]) -> anyhow::Result<Vec<String>> {
    let section = section(elf).context("no .modinfo section: not a kernel module")?;
    let entry = section.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let names = std::str::from_utf8(entry.unwrap_or_default()).context("depends= is not text")?;
    Ok(names.split(',').filter(|name| !name.is_empty()).map(normal).collect())
}

/// The kernel treats `-` and `_` in module names alike, and file names use both.
pub(crate) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The module in a file with this name, if the name is that of a module, compressed or not.
pub(crate) fn module_of_file(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let (stem, packing) = name.split_once(".ko")?;
    ["", ".xz", ".zst"].contains(&packing).then(|| normal(stem))
}

/// `roots` and all modules that they need, each after those that it needs. `depends` returns what a
/// module needs directly.
pub(crate) fn load_order(
    roots: &[String],
    depends: &mut dyn FnMut(&str) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let mut order = Vec::new();
    let mut path = Vec::new();
    for root in roots {
        visit(&normal(root), depends, &mut path, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    depends: &mut dyn FnMut(&str) -> anyhow::Result<Vec<String>>,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    if path.iter().any(|open| open == name) {
        bail!("modules depend on each other: {} -> {name}", path.join(" -> "));
    }
    path.push(name.to_owned());
    for needed in depends(name)? {
        visit(&needed, depends, path, order)?;
    }
    path.pop();
    order.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF file with a `.modinfo` section: header, names, contents, two section
    /// headers.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let headers = 64 + names.len() + modinfo.len();
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28..0x30].copy_from_slice(&(headers as u64).to_le_bytes());
        elf[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&2u16.to_le_bytes());
        elf.extend_from_slice(names);
        elf.extend_from_slice(modinfo);
        for (name, start, size) in [(0u32, 64, names.len()), (1, 64 + names.len(), modinfo.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(start as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    /// Check that dependencies are found among other entries, and that a module without any is no
    /// error.
    #[test]
    fn reads_depends() {
        let elf = module(b"license=GPL\0depends=drm,drm-shmem-helper\0name=vgem\0");
        assert_eq!(depends(&elf).unwrap(), ["drm", "drm_shmem_helper"]);
        assert!(depends(&module(b"depends=\0name=drm\0")).unwrap().is_empty());
    }

    /// Check that a truncated file gives an error or the right answer, and never a crash.
    #[test]
    fn truncation_is_no_crash() {
        let elf = module(b"depends=drm\0");
        for end in 0..elf.len() {
            assert!(
                depends(&elf[..end]).is_ok_and(|names| names == ["drm"]) == (end >= elf.len() - 24),
                "{end}"
            );
        }
    }

    /// Check which file names are those of modules.
    #[test]
    fn module_file_names() {
        assert_eq!(module_of_file("a/drm-x.ko.xz").as_deref(), Some("drm_x"));
        assert_eq!(module_of_file("vgem.ko").as_deref(), Some("vgem"));
        assert_eq!(module_of_file("vgem.kobject"), None);
        assert_eq!(module_of_file("modules.order"), None);
    }

    fn order(roots: &[&str]) -> anyhow::Result<Vec<String>> {
        let roots: Vec<String> = roots.iter().map(|&root| root.to_owned()).collect();
        load_order(&roots, &mut |name| {
            let needs: &[&str] = match name {
                "vgem" => &["drm_shmem_helper", "drm"],
                "drm_shmem_helper" => &["drm"],
                "a" => &["b"],
                "b" => &["a"],
                _ => &[],
            };
            Ok(needs.iter().map(|&need| need.to_owned()).collect())
        })
    }

    /// Check that each module comes once and after what it needs, and that a cycle is an error.
    #[test]
    fn needs_come_first() {
        assert_eq!(order(&["drm", "vgem"]).unwrap(), ["drm", "drm_shmem_helper", "vgem"]);
        assert!(order(&["a"]).is_err());
    }
}
