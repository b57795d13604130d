// Accounts: who is logged in (utmp), passwords (chpasswd(8)), SSH keys. Users are looked up by getent(1), which asks
// where the guest's own programs ask. A password is never in an argument, an environment or a log.
import { readFileSync } from 'node:fs';
import { isErrno } from '../../errors.js';
import { refuse } from '../../qga/server.js';
import { decodeBase64 } from '../base64.js';
import { runAction } from '../program.js';
import type { Sources } from '../kernel-files.js';
import { addKeys, readKeys, removeKeys } from '../ssh-keys.js';
import { loggedIn } from '../utmp.js';
import { errnoText } from '../errno-text.js';
import { family } from './types.js';

/** For chpasswd(8): PAM may ask the network. */
const PASSWORD_LIMIT_MS = 60_000;

export function accountHandlers(sources: Sources) {
  return family({
    'guest-get-users': () => loggedIn(readUtmp(sources.utmpPath)),
    async 'guest-set-user-password'({ username, password, crypted }) {
      const raw = decodeBase64(password);
      // qemu-ga takes it as a C string.
      const end = raw.indexOf(0);
      const secret = end < 0 ? raw : raw.subarray(0, end);
      if (secret.includes(0x0a)) refuse('forbidden characters in raw password');
      if (/[\n:]/.test(username)) refuse('forbidden characters in username');
      const input = Buffer.concat([Buffer.from(`${username}:`), secret, Buffer.from('\n')]);
      const command = crypted ? (['chpasswd', '-e'] as const) : (['chpasswd'] as const);
      await runAction(sources.run, sources.compat, 'set user password', command, { limitMs: PASSWORD_LIMIT_MS, input });
      return {};
    },
    'guest-ssh-get-authorized-keys': async ({ username }) => ({ keys: await readKeys(sources, username) }),
    async 'guest-ssh-add-authorized-keys'({ username, keys, reset }) {
      await addKeys(sources, username, keys, reset);
      return {};
    },
    async 'guest-ssh-remove-authorized-keys'({ username, keys }) {
      await removeKeys(sources, username, keys);
      return {};
    },
  });
}

/** Empty without the file: newer guests keep none, and then nobody is listed. */
function readUtmp(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return Buffer.alloc(0);
    return refuse(`failed to read '${path}': ${errnoText(error)}`);
  }
}
