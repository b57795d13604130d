// Finds for --check-config what --service would use, what it would not and why, and what would refuse a freeze. Only
// looks, and changes nothing: an agent may be running. How it is printed: check-text.ts.
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import type { IgnoredSetting, UsedSetting } from '../../agent/distribution-settings.js';
import { defined } from '../../defined.js';
import { configuredFolders } from '../../agent/freeze-options.js';
import { SEARCH_PATH } from '../../agent/program.js';
import { tools, type Tool } from '../../agent/tools.js';
import { foldersLeftTo, foldersWithHook } from '../../freeze/writers/dispatcher.js';
import { findWriters } from '../../freeze/writers/folders.js';
import { commandNames } from '../../qga/commands.js';
import { listsOf, namesOfNoCommand } from '../../qga/policy.js';
import { unusedHooks } from './distribution.js';
import type { Settings } from './settings.js';

interface HookCheck {
  readonly path: string;
  /**
   * `refuses`: every freeze fails until it is mended; `lowers`: the freeze goes on without it, at a lower level;
   * `left-to-hook`: run by the administrator's own hook if that does run it, and by nobody else.
   */
  readonly verdict: 'runs' | 'refuses' | 'lowers' | 'switched-off' | 'left-to-hook';
  readonly why?: string;
  /** A fault that its text lets one fear. What it does is known only when it runs. */
  readonly doubt?: string;
}

export interface ConfigurationCheck {
  /** 0: all is well. 1: something is ignored, refuses or lowers a freeze, or is missing. */
  readonly exitCode: 0 | 1;
  readonly files: readonly { readonly file: string; readonly found: boolean }[];
  readonly used: readonly UsedSetting[];
  readonly ignored: readonly IgnoredSetting[];
  /** Without a path: the method is none. */
  readonly channel: { readonly method: string; readonly path?: string; readonly found: boolean };
  readonly freezer: { readonly path: string; readonly found: boolean };
  readonly hooks: readonly HookCheck[];
  readonly policy: string;
  /** Commands that qemu-ga with the same lists lets the host use, and the policy does not. */
  readonly refusedByPolicy: readonly string[];
  readonly missingPrograms: readonly Tool[];
}

/**
 * Never throws.
 * @param configurationFile where qemu-ga's own file was looked for
 */
export function checkConfiguration(settings: Settings, configurationFile: string): ConfigurationCheck {
  const { bridge, distribution, method, path, policy, blockRpcs, allowRpcs, fsfreezeHook } = settings;
  const lists = { blockRpcs, allowRpcs };
  const unknown = Object.entries(lists).flatMap(([list, names]) =>
    namesOfNoCommand(names).map((name) => ({
      file: list === 'blockRpcs' ? 'block-rpcs' : 'allow-rpcs',
      setting: name,
      why: 'no such command: the name has no effect',
    })),
  );
  const ignored = [...distribution.ignored, ...unusedHooks(distribution, fsfreezeHook), ...unknown];
  const hooks = hooksIn(settings);
  const missingPrograms = tools.filter(({ program }) => !isThere(program));
  const freezer = { path: bridge.freezer, found: isThere(bridge.freezer) };
  const isWell =
    ignored.length === 0 &&
    missingPrograms.length === 0 &&
    freezer.found &&
    hooks.every(({ verdict, doubt }) => !['refuses', 'lowers'].includes(verdict) && doubt === undefined);
  const ours = listsOf({ preset: policy, alsoAllow: bridge['also-allow'] ?? [], ...lists });
  const stock = listsOf({ preset: 'full', ...lists });
  return {
    exitCode: isWell ? 0 : 1,
    files: [{ file: configurationFile, found: existsSync(configurationFile) }, ...distribution.files],
    used: distribution.used,
    ignored,
    channel: { method, ...defined({ path }), found: path === undefined || existsSync(path) },
    freezer,
    hooks,
    policy,
    refusedByPolicy: commandNames.filter(
      (name) => stock.allowed.has(name) && !stock.blocked.has(name) && !ours.allowed.has(name),
    ),
    missingPrograms,
  };
}

function hooksIn({ bridge, fsfreezeHook }: Settings): readonly HookCheck[] {
  const configured = configuredFolders(bridge['writer-folders']);
  const left = fsfreezeHook === undefined ? [] : findWriters(foldersLeftTo(fsfreezeHook, configured));
  const checked = findWriters(foldersWithHook(fsfreezeHook, configured)).map((writer): HookCheck => {
    const { path, kind, problem, problemKind, shipped = false } = writer;
    if (problem === undefined) return { path, verdict: 'runs', ...(kind === 'plain' ? doubtOf(path) : {}) };
    if (problemKind === 'switched-off') return { path, verdict: 'switched-off', why: problem };
    return { path, verdict: shipped || bridge['hook-failure'] === 'lower' ? 'lowers' : 'refuses', why: problem };
  });
  const why = `${fsfreezeHook} names its folder`;
  return [...checked, ...left.map(({ path }): HookCheck => ({ path, verdict: 'left-to-hook', why }))];
}

/** A script that ends with a test ends with the test's code, however well all went. */
function doubtOf(path: string): { readonly doubt?: string } {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return {};
  }
  if (!text.startsWith('#!')) return {};
  const lines = text.split('\n').map((line) => line.trim());
  const last = lines.findLast((line) => line !== '' && !line.startsWith('#')) ?? '';
  if (!/^(\[|test\s).*&&/.test(last) || last.includes('||')) return {};
  return { doubt: `its last line is a test ('${last}'): where that is false, its exit code is not 0` };
}

function isThere(program: string): boolean {
  const paths = isAbsolute(program) ? [program] : SEARCH_PATH.split(':').map((folder) => join(folder, program));
  return paths.some((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
