/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Whose the pages of a udmabuf are: memory that is another buffer's, too. */
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

/* Its pages, each by the folio that it is in; before and after the kernels that do so, by itself. */
struct udmabuf {
	u64 pagecount;
	struct folio **folios;
	struct page **pages;
};

#pragma clang attribute pop

/* The size of a page's descriptor: some configurations have larger ones. */
#define PAGE_STRUCT __builtin_preserve_type_info(*(struct page *)0, 1)

/* More than the 16 GiB of these would be told of in part. */
#define MOST_PAGES (1 << 22)

/* So many runs fit beside the other records of a step; of a udmabuf with more it cannot be told whose its pages are. */
#define MOST_RUNS 512

/* The walk of a udmabuf's pages. */
struct pages {
	void *seq;
	struct folio **folios;
	u64 runs;
	/* Whose the last ones were, how many of them, and where the last one is. */
	u64 mapping;
	u64 run;
	u64 last;
};

/* The mapping of pages of which it cannot be told; no address ends so. */
#define UNTOLD 1

/* Says whose the pages of a run are; a file that has gone has left them nobody's. */
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

		/* Of a folio only the first page says whose it is; in the others what would be the list's pointer is odd. */
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

/* Says whose the pages are, if it is a udmabuf. Not inlined: the stack of who calls it is short. */
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
		/* A module's structure, of which the kernel's own types do not tell, or one that nobody knows yet. */
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
