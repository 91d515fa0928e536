/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Finds out which files, usually memfds, the pages of a udmabuf belong to. The udmabuf and the
 * memfd are then the same memory, which must not be counted twice.
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
#define MOST_RUNS 512

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
