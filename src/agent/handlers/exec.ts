// guest-exec and guest-exec-status: checks what is asked and makes the answer. Processes and their output:
// exec-children.ts.
import { defined } from '../../defined.js';
import { refuse } from '../../qga/server.js';
import type { CaptureMode } from '../../qga/commands-exec.js';
import { decodeBase64 } from '../base64.js';
import { ExecChildren, NotStartedError } from '../exec-children.js';
import type { Sources } from '../kernel-files.js';
import { family } from './types.js';

export function execHandlers({ compat, runtimeDir, run }: Sources) {
  const children = new ExecChildren({ runtimeDir, run });
  return family({
    async 'guest-exec'({ path, arg = [], env, 'input-data': input, 'capture-output': capture }) {
      if (compat === '7.2' && typeof capture === 'string') {
        refuse(`Invalid parameter type for 'capture-output', expected: boolean`);
      }
      try {
        const pid = await children.start({
          path,
          args: arg,
          ...defined({ env }),
          ...(input === undefined ? {} : { input: decodeBase64(input) }),
          capture: captureMode(capture),
        });
        return { pid };
      } catch (error) {
        if (!(error instanceof NotStartedError)) throw error;
        return refuse(compat === '7.2' ? `Guest agent command failed, error was '${error.message}'` : error.message);
      }
    },
    'guest-exec-status'({ pid }) {
      const found = children.status(Number(pid));
      // QEMU 10.2 prints `PID ld does not exist`: a slip in its format.
      if (found === undefined)
        return refuse(compat === '7.2' ? `Invalid parameter 'pid'` : `PID ${pid} does not exist`);
      if (!found.exited) return { exited: false };
      const { exitCode, signal, out, err } = found;
      return {
        exited: true,
        ...defined({ exitcode: exitCode, signal }),
        ...(out.bytes.length === 0 ? {} : { 'out-data': out.bytes.toString('base64') }),
        ...(err.bytes.length === 0 ? {} : { 'err-data': err.bytes.toString('base64') }),
        ...(out.bytes.length === 0 ? {} : { 'out-truncated': out.truncated }),
        ...(err.bytes.length === 0 ? {} : { 'err-truncated': err.truncated }),
      };
    },
  });
}

function captureMode(capture: boolean | CaptureMode | undefined): CaptureMode {
  if (typeof capture === 'string') return capture;
  return capture === true ? 'separated' : 'none';
}
