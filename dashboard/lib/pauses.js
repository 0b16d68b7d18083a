// Pauses: what a request names, and what a row stands for. Pure.

/** All that can be paused. */
export const SCOPES = ['all', 'org', 'provider', 'rule'];

/**
 * The part of a request that names what is meant.
 * @param {{scope: string, org_id?: string | null, provider?: string | null, rule_id?: string | null}} named
 * @returns {{all: true} | {org_id: string} | {provider: string} | {rule_id: string}}
 */
export function targetOf({ scope, org_id, provider, rule_id }) {
  switch (scope) {
    case 'org':
      return { org_id: org_id ?? '' };
    case 'provider':
      return { provider: provider ?? '' };
    case 'rule':
      return { rule_id: rule_id ?? '' };
    default:
      return { all: true };
  }
}

/** @param {{scope: string, org_id?: string | null, provider?: string | null, rule_id?: string | null}} pause */
export function keyOf(pause) {
  return `${pause.scope}:${Object.values(targetOf(pause))[0]}`;
}
