/** The version of this program, from its package. */
import { createRequire } from 'node:module'

// From dist/bin/ the package is two floors up.
export const VERSION: string = createRequire(import.meta.url)('../../package.json').version
