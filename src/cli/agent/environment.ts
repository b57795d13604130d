// The environment in which the command line is read: variables, files, the service manager's socket. Settable for
// tests.
import { existsSync, readFileSync } from 'node:fs';
import { activatedSocket, type ActivatedSocket } from '../../agent/activation.js';
import { isErrno, pathError } from '../../errors.js';
import { hookAt, type DistributionEnvironment } from './distribution.js';

export interface Environment extends DistributionEnvironment {
  /** How the program was called, for messages. */
  readonly program: string;
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** The socket that the service manager has opened for this process; undefined if there is none. */
  readonly activated: () => ActivatedSocket | undefined;
}

/** The environment of this process. */
export const processEnvironment: Environment = {
  program: 'fsfreeze-agent',
  variables: process.env,
  activated: () => activatedSocket(process.env),
  exists: existsSync,
  hookAt,
  readFile(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw pathError('E_CONFIG', `cannot read ${path}`, error as NodeJS.ErrnoException);
    }
  },
};
