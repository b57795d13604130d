// Failures between libvirt and a guest agent: the list in qga/README.md. test/vm/libvirt-failures.test.ts sees libvirt's
// half, test/vm/failures.test.ts our host tool's: the words of a cell are those tests'.

interface Failure {
  readonly fault: string;
  readonly stock: string;
  readonly agent: string;
  readonly tool: string;
}

export const failures = {
  hookFailsAtFreeze: {
    fault: 'a hook fails at freeze',
    stock: 'snapshot refused; the hook is never told to thaw (under the stock dispatcher its failure is ignored)',
    agent: 'snapshot refused; every hook whose freeze was started is told to thaw',
    tool: 'exit 4, names the hook; nothing cut, nothing frozen',
  },
  hookFailsAtThaw: {
    fault: 'a hook fails at thaw',
    stock: 'snapshot taken and in use, virsh reports a failure; guest thawed',
    agent:
      'snapshot taken; thaw answers the count, the failure is in the report (`unreleased`) and in the log, and is tried again; guest thawed',
    tool: 'exit 7: the set is kept, labelled `filesystem`, and names the hook',
  },
  slowFreeze: {
    fault: 'the freeze takes 8 s, no time-out set',
    stock: 'libvirt waits, every other agent command behind it',
    agent: 'libvirt waits likewise; a guest-sync, and any request on the local socket, is answered at once',
    tool: 'exit 0: the hook has 10 s (settable), the tool waits longer than all limits of the guest',
  },
  timeout: {
    fault: 'guest-agent-timeout 5, the freeze takes 8 s',
    stock:
      'no snapshot; libvirt sends no thaw, the guest freezes later and **stays frozen** until somebody thaws it by hand',
    agent: 'no snapshot; the guest freezes later, and its lease thaws it (60 s, `lease-ms`)',
    tool: 'as above: the tool waits; were it to give up, it would thaw and ask until it is confirmed',
  },
  timeoutThenThaw: {
    fault: 'the same, and `virsh domfsthaw` at once',
    stock: 'fails: its guest-sync waits behind the freeze',
    agent: 'the guest-sync is answered at once; the thaw ends the freeze that is on its way',
    tool: '`fsfreeze-bridge thaw` does the same',
  },
  agentStopped: {
    fault: 'agent stopped (SIGSTOP), time-out 5, SIGCONT later',
    stock: 'the queued freeze is executed then; nobody thaws: **stays frozen**',
    agent: 'the queued freeze is executed then, and its lease thaws the guest',
    tool: 'exit 3 after 5 s: a guest that does not answer is not asked to freeze',
  },
  agentSilent: {
    fault: 'the next call after a time-out, the agent still silent',
    stock: 'its guest-sync has no answer within 5 s, the command is never sent',
    agent: 'the same',
    tool: 'the same: a handshake first',
  },
} as const satisfies Record<string, Failure>;

export type FailureName = keyof typeof failures;

/** A hook that runs these lines at freeze and at thaw, besides telling that it was called. */
// The head is for ours alone: without it a hook's word is a claim, and the tool asks for proof.
export const hook = (freeze: string, thaw = ''): string => `#!/bin/sh
# fsfreeze-writer: phases=freeze verify thaw
# fsfreeze-writer: guarantee=held
: >/run/hook-$1
case $1 in
freeze) ${freeze || ':'} ;;
thaw) ${thaw || ':'} ;;
esac
`;
