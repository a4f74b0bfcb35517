/** FastDFS's configuration files, key by key. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { type ConfRole, findStorageId, noteOfMode, readSettings } from '../../bin/fastdfs-conf.ts'
import { rowOf, STORAGE_KEYS, TRACKER_KEYS, TRACKER_KEYS_FOR_STORAGE } from '../../bin/fastdfs-keys.ts'
import { ConfError, readStorageIds } from '../../runtime/conf-file.ts'
import { realDisk } from '../../runtime/real-disk.ts'

const SHIPPED = 'test/bin/fastdfs-conf'

/** Every key that FastDFS 6.16 reads, shipped in its files or not. */
const COMMON = `disabled bind_addr port address_family connect_timeout network_timeout use_io_uring use_send_zc base_path
  max_connections accept_threads work_threads tcp_quick_ack log_level run_by_group run_by_user allow_hosts
  thread_stack_size use_connection_pool connection_pool_max_idle_time sync_log_buff_interval log_file_rotate_everyday
  log_file_rotate_time log_file_compress_old log_file_compress_days_before log_file_rotate_on_size log_file_keep_days
  log_file_delete_old_time`
const OF_TRACKERS = `response_ip_addr_size min_buff_size max_buff_size store_lookup store_group store_server store_path
  download_server reserved_storage_space check_active_interval storage_ip_changed_auto_adjust storage_sync_file_max_delay
  storage_sync_file_max_time use_trunk_file slot_min_size slot_max_size trunk_alloc_alignment_size trunk_free_space_merge
  delete_unused_trunk_files trunk_file_size trunk_create_file_advance trunk_create_file_time_base
  trunk_create_file_interval trunk_create_file_space_threshold trunk_init_check_occupying trunk_init_reload_from_binlog
  trunk_compress_binlog_min_interval trunk_compress_binlog_interval trunk_compress_binlog_time_base
  trunk_binlog_max_backups use_storage_id storage_ids_filename id_type_in_filename trust_storage_server_id
  store_slave_file_use_link`
const OF_STORAGES = `group_name client_bind server_id heart_beat_interval stat_report_interval buff_size disk_rw_separated
  disk_reader_threads disk_writer_threads sync_min_threads sync_max_threads sync_wait_msec sync_interval sync_start_time
  sync_end_time write_mark_file_freq disk_recovery_threads store_path_count store_path0 store_path255
  store_path0_readonly store_path12_readonly subdir_count_per_path tracker_server file_distribute_path_mode
  file_distribute_rotate_count fsync_after_written_bytes sync_binlog_buff_interval sync_stat_file_interval
  upload_priority if_alias_prefix check_file_duplicate file_signature_method key_namespace keep_alive
  file_sync_skip_invalid_record compress_binlog compress_binlog_time check_store_path_mark`
const keysOf = (...texts: string[]) => texts.join(' ').split(/\s+/)

describe('the keys of FastDFS', () => {
  it('all have a row', () => {
    for (const key of keysOf(COMMON, OF_TRACKERS)) expect(rowOf(TRACKER_KEYS, '', key), key).a('function')
    for (const key of keysOf(COMMON, OF_STORAGES)) expect(rowOf(STORAGE_KEYS, '', key), key).a('function')
    for (const [section, key] of [
      ['error-log', 'log_file_keep_days'],
      ['access-log', 'enabled'],
      ['access-log', 'time_precision'],
      ['access-log', 'log_file_keep_days'],
    ] as const) {
      expect(rowOf(STORAGE_KEYS, section, key), `[${section}] ${key}`).a('function')
    }
    expect(rowOf(TRACKER_KEYS, 'error-log', 'log_file_keep_days')).a('function')
  })

  it('have no row for what is none of them', () => {
    for (const key of ['', 'prot', 'store_path', 'store_pathX', 'toString', '__proto__', 'constructor']) {
      expect(rowOf(STORAGE_KEYS, '', key), key).equal(undefined)
    }
    expect(rowOf(STORAGE_KEYS, 'access-log2', 'enabled')).equal(undefined)
    expect(Object.keys(TRACKER_KEYS_FOR_STORAGE).filter(key => !(key in TRACKER_KEYS))).deep.equal([])
  })
})

describe('docs/migrate-from-fastdfs.md', () => {
  it('speaks of keys that there are, and of each that sets an option', () => {
    // Behind it the tables are of files.
    const [text = ''] = readFileSync('docs/migrate-from-fastdfs.md', 'utf8').split('## Files, in place')
    const cells = text
      .split('\n')
      .flatMap(line => /^\| (`.*?) \|/.exec(line)?.[1]?.replaceAll(/`\w+\.conf`/g, '') ?? [])
    const keys = cells.flatMap(cell =>
      [...cell.matchAll(/`((?:\[[a-z-]+\] )?[a-z]\w+)[^`]*`/g)].map(match => match[1]!),
    )
    expect(keys).length.greaterThan(25)
    const rows = { ...TRACKER_KEYS, ...STORAGE_KEYS, rw: () => ({}) }
    expect(keys.filter(key => !Object.hasOwn(rows, key) && !rowOf(rows, '', key))).deep.equal([])
    const setting = `bind_addr port allow_hosts store_lookup store_server store_path reserved_storage_space use_trunk_file
      slot_max_size group_name base_path store_path_count store_path0 upload_priority server_id`
    for (const key of keysOf(setting)) expect(text, key).contain(`\`${key}\``)
  })
})

describe('configuration files of FastDFS', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-conf-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  function write(name: string, text: string): string {
    writeFileSync(join(directory, name), text)
    return join(directory, name)
  }

  /** What files come to: `storage.conf` is what has a group. */
  async function settingsOf(role: ConfRole, ...texts: string[]) {
    const paths = texts.map((text, i) => write(`${i}.conf`, text))
    const { options, notes, storageIdsPath } = await readSettings(role, paths, realDisk)
    return {
      options: Object.fromEntries([...options].map(([option, { value }]) => [option, value])),
      notes: notes.map(({ level, what, why }) => ({ level, key: what.key, line: what.line, why })),
      storageIdsPath,
    }
  }
  const storage = (text: string, ...more: string[]) => settingsOf('storage', `group_name = g\n${text}`, ...more)
  const failureOf = (work: Promise<unknown>) => work.then(() => undefined).catch((error: Error) => error)

  describe('as they are shipped', () => {
    it('come to this for a tracker, and each key is taken or told of', async () => {
      const { options, notes } = await readSettings('tracker', [`${SHIPPED}/tracker.conf`], realDisk)
      expect(Object.fromEntries([...options].map(([option, { value }]) => [option, value]))).deep.equal({
        bind: '0.0.0.0',
        port: 22122,
        storeLookup: 'most_free',
        storeServer: 'round_robin',
        storePath: 'round_robin',
        allowHosts: ['*'],
      })
      expect(notes.filter(({ level }) => level === 'warn').map(({ what }) => what.key)).deep.equal(['use_storage_id'])
      const empty = ['run_by_group', 'run_by_user']
      const told = new Set([
        ...notes.map(({ what }) => what.key),
        ...[...options.values()].map(({ entry }) => entry.key),
      ])
      const silent = keysOf(COMMON, OF_TRACKERS).filter(key => !told.has(key) && !empty.includes(key))
      expect(silent).deep.equal(['disabled', 'tcp_quick_ack'])
    })

    it('come to this for a storage server', async () => {
      const { options, notes, storageIdsPath } = await readSettings(
        'storage',
        ['storage.conf', 'tracker.conf', 'storage_ids.conf'].map(name => `${SHIPPED}/${name}`),
        realDisk,
      )
      expect(Object.fromEntries([...options].map(([option, { value }]) => [option, value]))).deep.equal({
        group: 'group1',
        bind: '0.0.0.0',
        port: 23000,
        data: '/opt/fastdfs/natsdfs',
        storePath: ['/opt/fastdfs'],
        allowHosts: ['*'],
        uploadPriority: 10,
        storePathChoice: 'round_robin',
        reserved: { percent: 20 },
        segmentMaxFile: 0,
      })
      expect(notes.filter(({ level }) => level === 'warn').map(({ what }) => what.key)).deep.equal(['use_storage_id'])
      const trackers = notes.filter(({ what }) => what.key === 'tracker_server').map(({ what }) => what.value)
      expect(trackers).deep.equal(['192.168.0.196:22122', '192.168.0.197:22122'])
      const told = new Set([
        ...notes.map(({ what }) => what.key),
        ...[...options.values()].map(({ entry }) => entry.key),
      ])
      const silent = keysOf(COMMON, OF_STORAGES).filter(key => !told.has(key))
      // Off, empty, not shipped, or said by another key.
      expect(silent).deep.equal([
        ...['disabled', 'tcp_quick_ack', 'run_by_group', 'run_by_user', 'server_id', 'store_path_count'],
        ...['store_path255', 'store_path12_readonly', 'if_alias_prefix'],
      ])
      expect(storageIdsPath, 'use_storage_id is false').equal(undefined)
    })
  })

  for (const [role, text, expected] of [
    ['tracker', 'bind_addr = 10.0.0.1', { bind: '10.0.0.1' }],
    ['tracker', 'bind_addr = 10.0.0.1,fd00::1', { bind: '10.0.0.1' }],
    ['tracker', 'store_lookup = 0', { storeLookup: 'round_robin' }],
    ['tracker', 'store_group = g2\nstore_lookup = 1', { storeLookup: 'g2' }],
    ['tracker', 'store_server = 1\nstore_path = 2', { storeServer: 'by_address', storePath: 'most_free' }],
    ['tracker', 'store_server = 2', { storeServer: 'by_priority' }],
    [
      'tracker',
      'allow_hosts = 10.0.0.[1-3]\nallow_hosts =\nallow_hosts=a.com',
      { allowHosts: ['10.0.0.[1-3]', 'a.com'] },
    ],
    ['tracker', 'allow_hosts = 10.0.0.1\nallow_hosts =', { allowHosts: ['10.0.0.1'] }],
    ['tracker', 'base_path = /opt/x\nport =', {}],
    ['storage', 'store_path = 2', { storePathChoice: 'most_free' }],
    ['storage', 'reserved_storage_space = 1GB', { reserved: 2 ** 30 }],
    ['storage', 'reserved_storage_space = 4096', { reserved: 4096 }],
    ['storage', 'reserved_storage_space = 12.5%', { reserved: { percent: 12.5 } }],
    ['storage', 'use_trunk_file = true', {}],
    ['storage', 'use_trunk_file = 1\nslot_max_size = 256KB', { segmentMaxFile: 256 * 1024 - 24 }],
    ['storage', 'use_trunk_file = on\nslot_max_size = 64MB', { segmentMaxFile: 8 * 2 ** 20 - 24 }],
    ['storage', 'use_trunk_file = no\nslot_max_size = 256KB', { segmentMaxFile: 0 }],
    ['storage', 'store_lookup = 1\nport = 1', {}],
  ] as const) {
    it(`of a tracker set ${JSON.stringify(expected)} of a ${role} with ${text.replaceAll('\n', ', ')}`, async () => {
      expect((await settingsOf(role, text)).options).deep.equal(expected)
    })
  }

  for (const [text, expected] of [
    ['base_path = /a', { data: '/a/natsdfs', storePath: ['/a'] }],
    ['base_path = /a\nstore_path0 = /b', { data: '/a/natsdfs', storePath: ['/b'] }],
    ['store_path1 = /c\nstore_path0 = /b\nstore_path_count = 2', { storePath: ['/b', '/c'] }],
    ['base_path = /a\nstore_path1 = /c\nstore_path_count = 2', { data: '/a/natsdfs', storePath: ['/a', '/c'] }],
    ['server_id = 100001\nupload_priority = 1', { id: 100_001, uploadPriority: 1 }],
    ['port = 23001\nport = 23002', { port: 23_002 }],
  ] as const) {
    it(`of a storage server set ${JSON.stringify(expected)} with ${text.replaceAll('\n', ', ')}`, async () => {
      expect((await storage(text)).options).deep.equal({ group: 'g', ...expected })
    })
  }

  for (const text of [
    ...['use_storage_id = false', 'id_type_in_filename = ip', 'download_server = 1', 'address_family = IPv6'],
    ...[
      'bind_addr = 10.0.0.1,fd00::1',
      'prot = 1',
      'run_by_user = fdfs',
      '[none]\nport = 1',
      'port = 1\nport = 2',
      'port 1',
    ],
  ]) {
    it(`warn a tracker of ${text.replaceAll('\n', ', ')}`, async () => {
      const { notes } = await settingsOf('tracker', text)
      expect(notes.map(({ level }) => level)).deep.equal(['warn'])
    })
  }

  for (const text of [
    ...['store_path0_readonly = true', 'sync_start_time = 01:00', 'sync_end_time = 05:00', 'check_file_duplicate = 1'],
    ...['server_id = abc', 'server_id = 16777216', 'subdir_count_per_path = 128', 'check_store_path_mark = false'],
    ...['store_path0 = /a\nstore_path1 = /b', '[access-log]\nenabled = true'],
  ]) {
    it(`warn a storage server of ${text.replaceAll('\n', ', ')}`, async () => {
      const { notes } = await storage(text)
      expect(notes.map(({ level }) => level)).deep.equal(['warn'])
    })
  }

  it('tell where a key stands and what it says, but not what a key says that is not known', async () => {
    const path = write('t.conf', 'port = 1\nlog_level = debug\nhttp.anti_steal.secret_key = s3cret')
    expect((await readSettings('tracker', [path], realDisk)).notes).deep.equal([
      {
        level: 'info',
        what: { file: path, line: 2, key: 'log_level', value: 'debug' },
        why: 'DFS_LOG in the environment sets it',
      },
      {
        level: 'warn',
        what: { file: path, line: 3, key: 'http.anti_steal.secret_key' },
        why: 'natsdfs does not know this key',
      },
    ])
  })

  it('say that what is acknowledged is synced, whatever fsync_after_written_bytes says', async () => {
    for (const value of ['0', '1MB']) {
      const { notes } = await storage(`fsync_after_written_bytes = ${value}`)
      expect(notes).length(1)
      expect(notes[0]!.why).contain('is synced').and.contain('--durability os')
    }
  })

  for (const [role, text, message] of [
    ['tracker', 'disabled = true', /0\.conf:1: disabled = true: .*nothing is to be started/],
    ['tracker', 'a\nport = x', /0\.conf:2: port = x: a whole number/],
    ['tracker', 'port = 65536', /0\.conf:1: port = 65536/],
    ['tracker', 'store_lookup = 1', /0\.conf:1: store_lookup = 1: .*store_group/],
    ['tracker', 'store_lookup = 3', /one of 0, 2/],
    ['tracker', 'store_server = 3', /one of 0, 1, 2/],
    ['tracker', 'use_storage_id = maybe', /use_storage_id = maybe: neither true nor false/],
    ['tracker', 'allow_hosts = 10.0.0.300', /allow_hosts = .*no address/],
    ['tracker', 'allow_hosts =', /nobody could connect/],
    ['tracker', 'group_name = g', /0\.conf is for storage servers/],
    ['storage', 'reserved_storage_space = 120%', /reserved_storage_space = 120%: a size/],
    ['storage', 'group_name = g\nstore_path_count = 2\nstore_path0 = /a', /there is no store_path1/],
    ['storage', 'group_name = g\nstore_path_count = 257', /from 1 to 256/],
  ] as const) {
    it(`are refused with file and line by a ${role} with ${text.replaceAll('\n', ', ')}`, async () => {
      expect(await failureOf(settingsOf(role, text)))
        .instanceOf(Error)
        .property('message')
        .match(message)
    })
  }

  describe('that list storage ids', () => {
    const IDS = '1 g 10.0.0.1'

    it('are found beside the tracker.conf that names them', async () => {
      const ids = write('ids.conf', IDS)
      const { storageIdsPath } = await storage('', 'use_storage_id = true\nstorage_ids_filename = ids.conf')
      expect(storageIdsPath).equal(ids)
    })

    it('may be given, with a tracker.conf or without, and win over what it names', async () => {
      expect((await storage('', IDS)).storageIdsPath).equal(join(directory, '1.conf'))
      const named = 'use_storage_id = true\nstorage_ids_filename = nowhere.conf'
      expect((await storage('', named, IDS)).storageIdsPath).equal(join(directory, '2.conf'))
    })

    it('do not count where use_storage_id is false, or not given, or for a tracker, which is told of', async () => {
      for (const text of ['use_storage_id = false\nstorage_ids_filename = nowhere.conf', 'port = 22122']) {
        const { storageIdsPath, notes } = await storage('', text, IDS)
        expect(storageIdsPath).equal(undefined)
        expect(notes.at(-1)!.why).equal('use_storage_id is not true')
      }
      const { storageIdsPath, notes } = await settingsOf('tracker', 'port = 1', IDS)
      expect(storageIdsPath).equal(undefined)
      expect(notes.map(({ level, why }) => [level, why])).deep.equal([
        ['info', 'storage servers bring their ids: `dfs storage` takes it'],
      ])
    })

    const resolveName = async (host: string) => {
      if (host === 'host2.example.com') return '10.0.0.2'
      if (/[a-z]\./.test(host)) throw new Error('ENOTFOUND')
      return host
    }
    const LINES = `100001 group1 10.0.0.1
      100002 group1 10.0.0.9,host2.example.com rw=read
      100003 group2 10.0.0.1
      100004 group1 10.0.0.3:23000
      100005 group1 10.0.0.3:23001
      100006 group1 gone.example.com
      16777216 group1 10.0.0.4`
    const find = async (group: string | undefined, addresses: string[], port = 23000) =>
      findStorageId(await readStorageIds(realDisk, write('ids', LINES)), { group, addresses, port }, resolveName)

    it('say who a server is by group, address and port', async () => {
      expect((await find('group1', ['fd00::1', '10.0.0.1'])).storageId).equal(100_001)
      expect((await find('group1', ['10.0.0.2'])).storageId).equal(100_002)
      expect((await find('group1', ['10.0.0.3'], 23_001)).storageId).equal(100_005)
      expect(await find(undefined, ['10.0.0.9'])).include({ storageId: 100_002, group: 'group1' })
    })

    it('are refused where no line fits, or several, or the id is too large for a file id', async () => {
      for (const [group, address, message] of [
        ['group3', '10.0.0.1', /no line .*group3 at 10\.0\.0\.1, port 23000: --id/],
        ['group1', '10.0.0.7', /no line/],
        ['group1', '10.0.0.4', /ids:7: a storage id is a number from 1 to 16777215/],
        [undefined, '10.0.0.1', /ids:3: more than one line/],
      ] as const) {
        expect(await failureOf(find(group, [address])))
          .instanceOf(Error)
          .property('message')
          .match(message)
      }
      expect(await failureOf(find(undefined, ['10.0.0.1']))).instanceOf(ConfError)
    })

    it('are told of where a server is not to be read or written', async () => {
      expect(noteOfMode(await find('group1', ['10.0.0.2'])).map(({ level, what }) => [level, what.rw])).deep.equal([
        ['warn', 'read'],
      ])
      expect(noteOfMode(await find('group1', ['10.0.0.1']))).deep.equal([])
    })
  })
})
