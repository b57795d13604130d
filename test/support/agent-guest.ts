// A guest with our agent and freezer installed as a user installs them, and what vm tests do to it.
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { execa } from 'execa';
import { QgaClient } from '../../src/qga/client.js';
import { createRemoteCoordinator, type RemoteCoordinator } from '../../src/qga/remote-coordinator.js';
import { defaultRemoteLimits, type RemoteLimits } from '../../src/qga/until-confirmed.js';
import {
  bootGuest,
  guestImage,
  installedGuest,
  installedImage,
  restoreGuest,
  waitForAgent,
  type Guest,
  type GuestImage,
  type KernelVersion,
  type QemuGuest,
  type UserModeGuest,
} from '../../src/testing/index.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { readResult } from './bridge-result.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';

const DEBS = [path.join(root, 'build/fsfreeze-agent.deb')];

/** The saved state with our package in it, and PostgreSQL running. Slow once per build. */
export async function agentState(): Promise<string> {
  return await installedGuest({ debs: DEBS });
}

/** A guest in QEMU with our agent and a running PostgreSQL. */
export async function agentGuest(): Promise<QemuGuest> {
  return await restoreGuest(await agentState());
}

/** An image with our package in it: PostgreSQL is off. Slow once per build. */
export async function agentImage(recipe?: string): Promise<GuestImage> {
  return await installedImage({ debs: DEBS, image: await guestImage(recipe) });
}

export interface UserModeOptions {
  readonly kernel?: KernelVersion;
  /** Name of the image. */
  readonly recipe?: string;
}

/** The same as a user-mode guest: for what happens inside. */
export async function userModeAgent({ recipe, ...options }: UserModeOptions = {}): Promise<UserModeGuest> {
  const image = await agentImage(recipe);
  const guest = await bootGuest({ kind: 'user-mode', image, ...options });
  try {
    await guest.startPostgres();
    await waitForAgent(guest);
    return guest;
  } catch (cause) {
    await guest[Symbol.asyncDispose]();
    throw cause;
  }
}

export interface Requester extends AsyncDisposable {
  readonly client: QgaClient;
  readonly coordinator: RemoteCoordinator;
}

/** A client on the host's end of the agent's channel. */
export async function requester(guest: Guest, limits: Partial<RemoteLimits> = {}): Promise<Requester> {
  const client = await QgaClient.connect(guest.qgaPath, { timeoutMs: 30_000 });
  const coordinator = await createRemoteCoordinator(client, { ...defaultRemoteLimits, ...limits });
  return {
    client,
    coordinator,
    [Symbol.asyncDispose]: async () => {
      await client.close();
    },
  };
}

/** Drops a writer into the guest. */
export async function addWriter(guest: Pick<Guest, 'exec'>, name: string, script: string): Promise<void> {
  const file = `${HOOKS}/${name}`;
  await guest.exec(`mkdir -p ${HOOKS} && cat >${file} && chmod 755 ${file}`, { input: script });
}

export async function removeWriters(guest: Pick<Guest, 'exec'>, ...names: readonly string[]): Promise<void> {
  await guest.exec(['/bin/rm', '-f', ...names.map((name) => `${HOOKS}/${name}`)]);
}

interface BridgeOptions {
  /** Sockets other than the guest's. */
  readonly qmp?: string;
  readonly qga?: string;
  readonly timeoutMs?: number;
}

/** Runs the host tool on a guest; never throws for its exit code. */
export async function bridge(guest: QemuGuest, words: readonly string[], options: BridgeOptions = {}) {
  return await bridgeResult(bridgeProcess(guest, words, options));
}

export async function bridgeResult(process: ReturnType<typeof toolProcess>) {
  const result = await process;
  const text = typeof result.stdout === 'string' ? result.stdout : '';
  return {
    exitCode: result.exitCode,
    json: readResult(process.spawnargs, text) as unknown,
    stderr: result.stderr,
  };
}

/** The host tool as a process, for faults. */
export function bridgeProcess(
  guest: QemuGuest,
  words: readonly string[],
  { qmp = guest.qmpPath, qga = guest.qgaPath, ...limits }: BridgeOptions = {},
) {
  const vm = ['--vm', 'guest', '--qmp', qmp, '--qga', qga];
  return toolProcess([...words, ...vm, '--state-dir', path.join(guest.dir, 'state')], limits);
}

/** The host tool as built, with --json. `timeoutMs`: for everything. */
export function toolProcess(
  words: readonly string[],
  {
    env = {},
    timeoutMs = 120_000,
  }: { readonly env?: Readonly<Record<string, string>>; readonly timeoutMs?: number } = {},
) {
  return execa(process.execPath, [HOST_TOOL, ...words, '--json'], {
    reject: false,
    timeout: timeoutMs,
    env,
  });
}
