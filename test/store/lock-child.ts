/** Holds the lock of a data directory until it is killed; says on stdout how it went. For data-directory.test.ts. */
import { realWorld } from '../../runtime/real-world.ts'
import { openDirectory } from '../../store/data-directory.ts'
import { optionsOf } from './store-fixture.ts'

try {
  await openDirectory(realWorld(), optionsOf(process.argv[2]!))
  console.log('locked')
  // Ends with the pipe to whoever started us.
  process.stdin.resume()
} catch (error) {
  console.log((error as { errno?: string }).errno)
}
