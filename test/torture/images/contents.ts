// The oracle's arithmetic, pure: what a disk holds, what a guest wrote to it, and the worlds that are possible after
// something was killed half-way. A disk's content is two hexadecimal digits for each block of 64 KiB, which is filled
// with one byte; `??` is a block that is not. In what is expected, `**` is a block of which nothing is known.

export const BLOCK_KILOBYTES = 64;
const BLOCK_BYTES = BLOCK_KILOBYTES * 1024;

export type Content = string;
/** By disk. */
export type Contents = ReadonlyMap<string, Content>;

export function emptyContent(blocks: number): Content {
  return '00'.repeat(blocks);
}

/** What a raw image holds. */
export function contentOf(bytes: Buffer): Content {
  const blocks: string[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    const first = block[0] ?? 0;
    blocks.push(block.every((byte) => byte === first) ? hex(first) : '??');
  }
  return blocks.join('');
}

export function written(content: Content, at: number, blocks: number, pattern: number): Content {
  return `${content.slice(0, 2 * at)}${hex(pattern).repeat(blocks)}${content.slice(2 * (at + blocks))}`;
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

/** The same with blocks that a write was on its way to when QEMU ended: old, new or torn. */
export function unsure(content: Content, at: number, blocks: number): Content {
  return `${content.slice(0, 2 * at)}${'**'.repeat(blocks)}${content.slice(2 * (at + blocks))}`;
}

/** True if `found` is what was expected. */
function matches(expected: Content, found: Content): boolean {
  if (!expected.includes('*')) return expected === found;
  if (expected.length !== found.length) return false;
  for (let at = 0; at < found.length; at++) if (expected[at] !== '*' && expected[at] !== found[at]) return false;
  return true;
}

/** What a VM's disks may hold: one of the options, or, if `mixed`, each disk one of them. */
export interface World {
  readonly options: readonly Contents[];
  readonly mixed: boolean;
}

/** True if these disks (others of the world are not asked) hold what they may. */
export function admits({ options, mixed }: World, found: Contents): boolean {
  const fits = (option: Contents, disks: Contents): boolean =>
    [...disks].every(([disk, content]) => matches(option.get(disk) ?? content, content));
  if (!mixed) return options.some((option) => fits(option, found));
  return [...found].every(([disk, content]) => options.some((option) => fits(option, new Map([[disk, content]]))));
}

/** The options with one disk changed in each. */
export function withDisk(world: World, disk: string, change: (content: Content) => Content): World {
  const options = world.options.map((option) => {
    const content = option.get(disk);
    return content === undefined ? option : new Map(option).set(disk, change(content));
  });
  return { ...world, options };
}

export function overlaid(under: Contents, over: Contents): Contents {
  return new Map([...under, ...over]);
}

/** How what was found differs from the option it is nearest to: `disk d0: blocks 3-5 hold 07, expected 09`. */
export function difference(options: readonly Contents[], found: Contents): string {
  let best: string[] | undefined;
  for (const option of options) {
    const all = [...found].flatMap(([disk, content]) =>
      differingBlocks(option.get(disk) ?? content, content).map((text) => `disk ${disk}: ${text}`),
    );
    if (best === undefined || all.length < best.length) best = all;
  }
  if (best === undefined) return 'nothing is expected of it';
  const more = best.length > 4 ? [`and ${best.length - 4} more`] : [];
  return [...best.slice(0, 4), ...more].join('; ');
}

function differingBlocks(expected: Content, found: Content): string[] {
  const texts: string[] = [];
  for (let at = 0; at < Math.max(expected.length, found.length); at += 2) {
    const [want, have] = [expected, found].map((content) => content.slice(at, at + 2) || 'nothing');
    if (want !== have && want !== '**') texts.push(`block ${at / 2} holds ${have ?? ''}, expected ${want ?? ''}`);
  }
  return texts;
}
