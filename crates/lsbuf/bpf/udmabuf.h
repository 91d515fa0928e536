/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Finds out which files the pages of a dma-buf belong to: of a udmabuf usually memfds, of a buffer
 * of a graphics driver often a file that the driver has for it. The two are then the same memory,
 * which must not be counted twice.
 */
#ifndef LSBUF_UDMABUF_H
#define LSBUF_UDMABUF_H

#include "lsbuf.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct folio {
	struct list_head lru;
	struct address_space *mapping;
};

struct page {
	u64 flags;
};

/* A buffer of a graphics driver. `filp` is null if its memory is not shared memory. */
struct drm_gem_object {
	struct file *filp;
	u64 size;
};

/*
 * The pages of a udmabuf. Some kernels list the folio of each page; older and newer ones list the
 * page itself.
 */
struct udmabuf {
	u64 pagecount;
	struct folio **folios;
	struct page **pages;
};

#pragma clang attribute pop

/* The size of struct page. It depends on the kernel's configuration. */
#define PAGE_STRUCT __builtin_preserve_type_info(*(struct page *)0, 1)

/*
 * So many pages, 16 GiB of 4 KiB each, are looked at. The last run of a larger udmabuf is reported
 * as unknown.
 */
#define MOST_PAGES (1 << 22)

/*
 * So many runs fit beside the other records of a step. If a udmabuf has more, the record of the
 * last one says that the owner is not known.
 */
#define MOST_RUNS 500

/* The state of the walk over a udmabuf's pages. */
struct pages {
	void *seq;
	struct folio **folios;
	u64 runs;
	/*
	 * Of the current run: the address of the file's address_space, the number of pages, and the
	 * address of the last folio or page.
	 */
	u64 mapping;
	u64 run;
	u64 last;
};

/* Stands for the mapping of a page whose owner is not known. No address is odd. */
#define UNTOLD 1

/*
 * Writes the record of a run of pages. Pages whose file has gone belong to nobody and get no
 * record.
 */
static always_inline void put_run(struct pages *pages)
{
	struct address_space *mapping = (void *)pages->mapping;
	record(memfd_pages, found);
	struct super_block *fs = 0;
	struct inode *inode = 0;

	if (!mapping || !pages->run)
		return;
	found.untold = pages->mapping == UNTOLD;
	peek(inode, mapping->host);
	peek(found.ino, inode->i_ino);
	peek(fs, inode->i_sb);
	peek(found.dev, fs->s_dev);
	found.pages = pages->run;
	put(pages->seq, found, MEMFD_PAGES);
}

static long one_page(u32 at, struct pages *pages)
{
	struct folio *folio = 0;
	u64 address = 0, mapping;

	probe_read(&folio, sizeof(folio), pages->folios + at);
	probe_read(&address, sizeof(address), &folio);
	mapping = pages->mapping;
	if (address != pages->last || !at) {
		struct address_space *of = 0;
		u64 word = 0;

		/*
		 * Only the first page of a folio has the mapping. In all others the word in place
		 * of the list's pointer is odd.
		 */
		peek(word, folio->lru);
		if (!(word & 1)) {
			peek(of, folio->mapping);
			probe_read(&mapping, sizeof(mapping), &of);
		} else if (!at || address != pages->last + PAGE_STRUCT) {
			mapping = UNTOLD;
		}
		pages->last = address;
	}
	if (mapping != pages->mapping) {
		if (unknown(&pages->runs) >= MOST_RUNS) {
			pages->mapping = UNTOLD;
			return 1;
		}
		put_run(pages);
		pages->mapping = mapping;
		pages->run = 0;
		pages->runs = unknown(&pages->runs) + 1;
	}
	pages->run = unknown(&pages->run) + 1;
	return 0;
}

#if SHMEM
/*
 * The offsets of `filp` and `size` in struct drm_gem_object, if its type belongs to a module. Both
 * 0: not known.
 */
volatile const u32 gem_offsets[2] = {};

/*
 * Writes which file a graphics driver has for a buffer. The private data of most of these buffers
 * is their GEM object. It is one if it has the buffer's size, and a file with the name that the
 * kernel gives such files. Not inlined, as show_pages().
 */
static never_inline int show_gem_file(void *seq, struct dma_buf *dmabuf)
{
	u64 at_file = gem_offsets[0], at_size = gem_offsets[1], object = 0, name = 0, magic = 0, size = 0, its = 0;
	struct drm_gem_object *gem = 0;
	const unsigned char *text = 0;
	struct dentry *dentry = 0;
	struct super_block *fs = 0;
	struct inode *inode = 0;
	struct file *file = 0;
	record(gem_file, found);

	if (exists(gem->filp) && exists(gem->size)) {
		at_file = place_of(gem->filp);
		at_size = place_of(gem->size);
	}
	if (!at_size)
		return 0;
	peek(object, dmabuf->priv);
	peek(size, dmabuf->size);
	probe_read(&its, sizeof(its), (void *)(object + at_size));
	if (!object || size != its)
		return 0;
	probe_read(&file, sizeof(file), (void *)(object + at_file));
	peek(inode, file->f_inode);
	peek(fs, inode->i_sb);
	peek(magic, fs->s_magic);
	peek(dentry, file->f_path.dentry);
	peek(text, dentry->d_name.name);
	probe_read_str(&name, sizeof(name), text);
	if (magic != TMPFS_MAGIC || (name != *(u64 *)"drm mm " && name != *(u64 *)"i915\0\0\0"))
		return 0;
	peek(found.ino, inode->i_ino);
	peek(found.dev, fs->s_dev);
	put(seq, found, GEM_FILE);
	return 0;
}
#else
#define show_gem_file(seq, dmabuf) 0
#endif

/*
 * Writes which files the pages belong to, if the buffer is a udmabuf. Not inlined, because its
 * caller has little stack left.
 */
static never_inline int show_pages(void *seq, struct dma_buf *dmabuf)
{
	struct pages pages;
	struct udmabuf *udmabuf = 0;
	const char *exporter = 0;
	u64 count = 0, name = 0;

	peek(exporter, dmabuf->exp_name);
	probe_read_str(&name, sizeof(name), exporter);
	if (name != *(u64 *)"udmabuf")
		return 0;
	forget(pages);
	pages.seq = seq;
	peek(udmabuf, dmabuf->priv);
	if (exists(udmabuf->folios) && exists(udmabuf->pagecount)) {
		peek(count, udmabuf->pagecount);
		peek(pages.folios, udmabuf->folios);
	} else if (exists(udmabuf->pages) && exists(udmabuf->pagecount)) {
		peek(count, udmabuf->pagecount);
		peek(pages.folios, udmabuf->pages);
	} else {
		/*
		 * The kernel's types do not describe struct udmabuf because it belongs to a module,
		 * or the structure of this kernel is not known here.
		 */
		pages.mapping = UNTOLD;
		pages.run = 1;
		put_run(&pages);
		return 0;
	}
	loop(count < MOST_PAGES ? count : MOST_PAGES, one_page, &pages, 0);
	if (count > MOST_PAGES)
		pages.mapping = UNTOLD;
	put_run(&pages);
	return 0;
}

#endif
