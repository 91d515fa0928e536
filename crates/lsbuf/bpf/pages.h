/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The walk over the pages of an inode, for shmem_inodes.bpf.c, in which it is included: it uses the
 * walk's state. payers.h says what it does and has its structures.
 */

/* Whether a controller is the one of this name. */
static always_inline int is_of(struct cgroup_subsys_state *css, u64 name)
{
	struct cgroup_subsys *controller = 0;
	const char *its = 0;
	u64 text = 0;

	peek(controller, css->ss);
	peek(its, controller->name);
	probe_read_str(&text, sizeof(text), its);
	return text == name;
}

/* "memory" and "hugetlb" as numbers of a little-endian machine. */
#define MEMORY 0x79726f6d656dULL
#define HUGETLB 0x626c7465677568ULL
/* Set beside a pointer that is to a cgroup of the controller hugetlb. */
#define OF_HUGETLB 4ULL

/* The state of the walk over the names of a cgroup. */
struct ancestors {
	struct piece *piece;
	u64 at;
	u64 length;
};

static long one_folder(u32 nth, struct ancestors *path)
{
	struct kernfs_node___6_15 *new;
	struct kernfs_node___payer *at;
	u64 length = unknown(&path->length);
	struct piece *piece = path->piece;
	const char *name = 0;
	long copied;

	if (!piece || !path->at || length >= PATH_ROOM)
		return 1;
	probe_read(&at, sizeof(at), &path->at);
	peek(name, at->name);
	asm volatile("" : "+r"(length));
	length &= PATH_ROOM - 1;
	copied = probe_read_str(piece->cgroup_path + length, NAME_ROOM, name);
	if (copied <= 0)
		return 1;
	path->length = length + copied;
	new = (void *)at;
	if (exists(new->__parent))
		peek(path->at, new->__parent);
	else
		peek(path->at, at->parent);
	return 0;
}

/* Describes a cgroup, unless that was done in this reading already. see_pages() writes it. */
verified_once int describe_cgroup(struct piece *piece, u64 address, u64 id)
{
	struct mem_cgroup *memcg;
	struct cgroup___payer *cgroup = 0;
	struct cgroup_root *root = 0;
	struct ancestors path;
	u64 *told;
	u32 flags = 0;

	if (!piece)
		return 0;
	told = &piece->cursor.end.pages.told[id % TOLD];
	if (*told == id)
		return 0;
	*told = id;
	piece->pages.described = 1;
	forget(path);
	probe_read(&memcg, sizeof(memcg), &address);
	peek(flags, memcg->css.flags);
	peek(cgroup, memcg->css.cgroup);
	peek(root, cgroup->root);
	peek(piece->cgroup.hierarchy, root->hierarchy_id);
	peek(path.at, cgroup->kn);
	path.piece = piece;
	loop(MOST_FOLDERS, one_folder, &path, 0);
	piece->pages.names = unknown(&path.length);
	piece->cgroup.cgroup = id;
	piece->cgroup.removed = !!(flags & CSS_DYING);
	return 0;
}

/* Writes the cgroup that this move has described. */
static always_inline void write_cgroup(struct walk *walk, struct piece *piece)
{
	u64 length = piece->pages.names;

	asm volatile("" : "+r"(length));
	if (length > PATH_ROOM)
		length = PATH_ROOM;
	piece->cgroup.head.kind = SHM_CGROUP;
	piece->cgroup.head.size = sizeof(piece->cgroup) + length;
	seq_write(walk->seq, &piece->cgroup, sizeof(piece->cgroup) + length);
}

/*
 * Which payer a folio's data refer to; PAYERS_OF_ONE: to none of those that are told apart.
 */
verified_once u64 find_payer(struct piece *piece, u64 data)
{
	struct cgroup___payer *cgroup = 0;
	struct kernfs_node___payer *kn = 0;
	struct obj_cgroup *object;
	struct pages_place *place;
	struct mem_cgroup *memcg;
	struct payer *payers;
	u64 address = data & ~7ULL, id = 0;

	if (!piece)
		return PAYERS_OF_ONE;
	for (u32 nth = 0; nth < PAYERS_OF_ONE; nth++)
		if (piece->pages.data[nth] == data)
			return nth;
	probe_read(&memcg, sizeof(memcg), &address);
	if (!is_of(&memcg->css, data & OF_HUGETLB ? HUGETLB : MEMORY)) {
		object = (void *)memcg;
		if (data & OF_HUGETLB || !exists(object->memcg))
			return PAYERS_OF_ONE;
		peek(address, object->memcg);
		probe_read(&memcg, sizeof(memcg), &address);
		if (!is_of(&memcg->css, MEMORY))
			return PAYERS_OF_ONE;
	}
	peek(cgroup, memcg->css.cgroup);
	peek(kn, cgroup->kn);
	peek(id, kn->id);
	place = &piece->cursor.end.pages;
	payers = place->payers;
	for (u32 nth = 0; nth < PAYERS_OF_ONE; nth++) {
		if (payers[nth].cgroup && payers[nth].cgroup != id)
			continue;
		piece->pages.data[nth] = data;
		payers[nth].cgroup = id;
		if (place->known <= nth)
			place->known = nth + 1;
		describe_cgroup(piece, address, id);
		return nth;
	}
	return PAYERS_OF_ONE;
}

/*
 * Reads what the slots of a node refer to. A slot that has no folio has no address of the kernel,
 * or that of a node, and nothing is done with what is read there.
 */
verified_once int read_folios(struct piece *piece)
{
	struct folio___payer *layout = 0;
	struct pages_scratch *pages;

	if (!piece)
		return 0;
	pages = &piece->pages;
	for (u32 nth = 0; nth < 64; nth++)
		probe_read(&pages->folios[nth], FOLIO_ROOM,
			   (void *)(pages->slots[nth] + place_of(layout->mapping)));
	return 0;
}

/* Where in `bytes` of a folio's part its charge is. */
#define CHARGE_AT (place_of(((struct folio___payer *)0)->memcg_data) - place_of(((struct folio___payer *)0)->mapping))

/* What a slot refers to, if that is a folio. */
static always_inline u64 see_folio(struct piece *piece, u32 nth)
{
	struct folio___payer *layout = 0;
	struct pages_scratch *pages = &piece->pages;
	u64 data, mapping, entry;

	if (CHARGE_AT > FOLIO_ROOM - 8)
		return LOST;
	data = *(u64 *)(pages->folios[nth].bytes + CHARGE_AT);
	mapping = *(u64 *)pages->folios[nth].bytes;
	/* It was freed, and may be another file's by now. */
	if (mapping != pages->mapping)
		return LOST;
	if (!data && pages->hugetlb && exists(layout->_hugetlb_cgroup)) {
		entry = pages->slots[nth];
		probe_read(&layout, sizeof(layout), &entry);
		peek(data, layout->_hugetlb_cgroup);
		if (data)
			data |= OF_HUGETLB;
	}
	if (!data)
		return NOBODYS;
	if (data != pages->last) {
		pages->last = data;
		pages->row = find_payer(piece, data);
	}
	return CHARGED;
}

/* Whether a slot has a folio that is charged to the cgroup of the last slot. */
static always_inline int goes_on(struct pages_scratch *pages, u32 nth)
{
	u64 entry = pages->slots[nth], data;

	if (CHARGE_AT > FOLIO_ROOM - 8 || !entry || entry & 3)
		return 0;
	data = *(u64 *)(pages->folios[nth].bytes + CHARGE_AT);
	return data && data == pages->last && *(u64 *)pages->folios[nth].bytes == pages->mapping;
}

/* Counts slots that are charged to the cgroup that was looked up last. */
static always_inline void add_charged(struct piece *piece, u64 slots)
{
	struct pages_place *place = &piece->cursor.end.pages;
	u64 row = piece->pages.row, number = slots << (piece->pages.shift & 63);

	asm volatile("" : "+r"(row));
	place->counted[CHARGED] += number;
	if (row < PAYERS_OF_ONE)
		place->payers[row].pages += number;
	else
		place->others += number;
}

/* Counts the slots that went on. */
verified_once int end_run(struct piece *piece)
{
	if (!piece)
		return 0;
	add_charged(piece, piece->pages.run);
	piece->pages.run = 0;
	return 0;
}

/* Counts what a slot has. Returns 1 if the walk cannot go on in this node. */
verified_once int see_slot(struct piece *piece, u32 nth)
{
	struct pages_scratch *pages;
	struct pages_place *place;
	u64 entry, kind;

	if (!piece)
		return 1;
	pages = &piece->pages;
	place = &piece->cursor.end.pages;
	end_run(piece);
	asm volatile("" : "+r"(nth));
	nth &= 63;
	entry = pages->slots[nth];
	if (!entry)
		return 0;
	if ((entry & 3) == 2) {
		/* Another node. */
		if (entry > LAST_MARK)
			return 1;
		/* Up to here, it continues the slot before. */
		if (entry >= 256)
			pages->kind = LOST;
	} else if (entry & 1) {
		pages->kind = IN_SWAP;
	} else {
		/* What one move writes must fit. The next move begins with this slot. */
		if (pages->described)
			return 1;
		pages->kind = see_folio(piece, nth);
	}
	kind = pages->kind;
	asm volatile("" : "+r"(kind));
	if (kind == CHARGED) {
		add_charged(piece, 1);
		return 0;
	}
	if (kind > LOST)
		kind = LOST;
	place->counted[kind] += 1ULL << (pages->shift & 63);
	return 0;
}

/* Looks at one node of the tree, from the index on where the walk is. Returns 1 at its end. */
verified_once int see_node(struct piece *piece)
{
	struct inode___payer *inode;
	struct pages_scratch *pages;
	struct pages_place *place;
	u64 head = 0, at, index, entry, above;
	u32 shift = 0, root_shift = 0;
	struct xa_node *node;
	u8 its = 0;

	if (!piece)
		return 1;
	pages = &piece->pages;
	place = &piece->cursor.end.pages;
	pages->described = 0;
	inode = (void *)piece->cursor.end.seen[0];
	peek(head, inode->i_data.i_pages.xa_head);
	pages->mapping = next_of(&piece->cursor.end.seen[0]) + place_of(inode->i_data);
	if ((head & 3) != 2 || head <= LAST_MARK) {
		/* One page at index 0, or nothing. */
		pages->shift = 0;
		pages->slots[0] = head;
		if (head && !place->next) {
			read_folios(piece);
			see_slot(piece, 0);
		}
		return 1;
	}
	index = place->next;
	at = head - 2;
	for (u32 level = 0; level < 11; level++) {
		probe_read(&node, sizeof(node), &at);
		peek(its, node->shift);
		shift = its & 63;
		if (!level)
			root_shift = shift;
		if (!shift)
			break;
		above = at + place_of(node->slots) + (index >> shift & 63) * 8;
		entry = next_of((void *)above);
		if ((entry & 3) != 2 || entry <= LAST_MARK)
			break;
		at = entry - 2;
	}
	if (index >> root_shift >> 6)
		return 1;
	pages->shift = shift;
	pages->kind = LOST;
	probe_read(pages->slots, sizeof(pages->slots), (void *)(at + place_of(node->slots)));
	read_folios(piece);
	for (u32 nth = index >> shift & 63, seen = 0; seen < 64 && nth < 64; nth++, seen++) {
		if (goes_on(pages, nth & 63)) {
			pages->kind = CHARGED;
			pages->run++;
			continue;
		}
		/* The first slot had no node a moment ago. */
		if (see_slot(piece, nth) && seen) {
			place->next = ((index >> shift & ~63ULL) + nth) << shift;
			return 0;
		}
	}
	end_run(piece);
	place->next = ((index >> (shift + 6)) + 1) << (shift + 6);
	return shift >= root_shift || place->next >> root_shift >> 6;
}

/* Begins the pages of the inode that was written last. */
static always_inline void begin_pages(struct piece *piece)
{
	struct pages_place *place = &piece->cursor.end.pages;

	place->next = 0;
	place->others = 0;
	place->known = 0;
	forget(place->counted);
	forget(place->payers);
	forget(piece->pages.data);
	piece->pages.last = 0;
	place->in_pages = 1;
}

/* Goes on with the pages of an inode. At their end, writes who pays for them. */
static never_inline long see_pages(struct walk *walk)
{
	struct piece *piece = walk->piece;
	struct pages_scratch *pages;
	struct pages_place *place;
	u64 payers = 0;
	int ended;

	if (!piece)
		return 1;
	pages = &piece->pages;
	place = &piece->cursor.end.pages;
	pages->hugetlb = piece->cursor.end.magic == HUGETLBFS_MAGIC;
	ended = see_node(piece);
	if (pages->described)
		write_cgroup(walk, piece);
	if (!ended)
		return 0;
	place->in_pages = 0;
	pages->pages.object = piece->cursor.end.object;
	pages->pages.others = place->others;
	pages->pages.in_swap = place->counted[IN_SWAP];
	pages->pages.nobodys = place->counted[NOBODYS];
	pages->pages.lost = place->counted[LOST];
	probe_read(pages->payers, sizeof(pages->payers), place->payers);
	payers = unknown(&place->known);
	if (payers > PAYERS_OF_ONE)
		payers = PAYERS_OF_ONE;
	pages->pages.payers = payers;
	pages->pages.head.kind = SHM_PAGES_OF;
	pages->pages.head.size = sizeof(pages->pages) + payers * sizeof(struct payer);
	seq_write(walk->seq, &pages->pages, sizeof(pages->pages) + payers * sizeof(struct payer));
	return 0;
}
