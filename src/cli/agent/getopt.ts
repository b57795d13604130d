// Reads a command line as getopt_long(3) does for qemu-ga: attached values (`-munix-listen`), bundles (`-vd`), optional
// values (`-F`, `-F/path`, `--fsfreeze-hook=/path`), unambiguous abbreviations of long names, `--`. Gives canonical
// `--name` and `--name=value` words. No library does: yargs cannot read `-munix-listen`, and what is left to do after
// this is not worth the 3 MiB of memory it costs a daemon in every guest.

export interface OptionForm {
  readonly long: string;
  readonly short?: string;
  readonly value: 'none' | 'required' | 'optional';
}

/** getopt does not take the command line. The message is glibc's, without the program's name. */
export class GetoptError extends Error {
  /** The options before the one that is wrong: getopt had given them out by then. */
  before: readonly string[] = [];
}

export interface CanonicalWords {
  /** In the order given: `--name` or `--name=value`. */
  readonly options: readonly string[];
  readonly positionals: readonly string[];
}

/** Throws a GetoptError. */
export function normalise(words: readonly string[], forms: readonly OptionForm[]): CanonicalWords {
  const options: string[] = [];
  try {
    return { options, positionals: separate([...words], forms, options) };
  } catch (error) {
    if (error instanceof GetoptError) error.before = options;
    throw error;
  }
}

/** Gives the positional words; adds to `options` as it goes. */
function separate(rest: string[], forms: readonly OptionForm[], options: string[]): string[] {
  const positionals: string[] = [];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      positionals.push(...rest.splice(0));
    } else if (word.startsWith('--')) {
      options.push(longOption(word, rest, forms));
    } else if (word.startsWith('-') && word !== '-') {
      shortOptions(word, rest, forms, options);
    } else {
      positionals.push(word);
    }
  }
  return positionals;
}

function longOption(word: string, rest: string[], forms: readonly OptionForm[]): string {
  const equals = word.indexOf('=');
  const name = word.slice(2, equals < 0 ? undefined : equals);
  const attached = equals < 0 ? undefined : word.slice(equals + 1);
  const form = findLong(name, word, forms);
  const canonical = `--${form.long}`;
  if (form.value === 'none') {
    if (attached !== undefined) throw new GetoptError(`option '${canonical}' doesn't allow an argument`);
    return canonical;
  }
  if (attached !== undefined) return `${canonical}=${attached}`;
  if (form.value === 'optional') return canonical;
  const value = rest.shift();
  if (value === undefined) throw new GetoptError(`option '${canonical}' requires an argument`);
  return `${canonical}=${value}`;
}

function findLong(name: string, word: string, forms: readonly OptionForm[]): OptionForm {
  const candidates = forms.filter(({ long }) => long.startsWith(name));
  const exact = candidates.find(({ long }) => long === name);
  if (exact !== undefined) return exact;
  // qemu-ga's options, which all have a letter, come before ours: what abbreviates one there does so here.
  const theirs = candidates.filter(({ short }) => short !== undefined);
  const meant = theirs.length > 0 ? theirs : candidates;
  const [first, second] = meant;
  if (first === undefined) throw new GetoptError(`unrecognized option '${word}'`);
  if (second === undefined) return first;
  const possibilities = meant.map(({ long }) => ` '--${long}'`).join('');
  throw new GetoptError(`option '${word}' is ambiguous; possibilities:${possibilities}`);
}

function shortOptions(word: string, rest: string[], forms: readonly OptionForm[], found: string[]): void {
  for (let index = 1; index < word.length; index++) {
    const letter = word.charAt(index);
    const form = forms.find(({ short }) => short === letter);
    if (form === undefined) throw new GetoptError(`invalid option -- '${letter}'`);
    const canonical = `--${form.long}`;
    if (form.value === 'none') {
      found.push(canonical);
      continue;
    }
    const attached = word.slice(index + 1);
    if (attached !== '') found.push(`${canonical}=${attached}`);
    else if (form.value === 'optional') found.push(canonical);
    else {
      const value = rest.shift();
      if (value === undefined) throw new GetoptError(`option requires an argument -- '${letter}'`);
      found.push(`${canonical}=${value}`);
    }
    break;
  }
}
