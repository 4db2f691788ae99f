"""Questions and answers of many countries, as people save them in their own encodings."""

Pairs = list[tuple[str, str]]

JAPANESE: Pairs = [
    ("返品はできますか", "はい、商品到着後三十日以内でしたら承ります。レシートをお持ちください。"),
    ("営業時間を教えてください", "平日は午前九時から午後六時までです。"),
    ("送料はいくらですか", "全国一律五百円です。五千円以上のご購入で無料になります。"),
    ("パスワードを忘れました", "ログイン画面の「パスワードを忘れた方」から再設定してください。"),
    ("領収書は発行できますか", "マイページの注文履歴からダウンロードできます。"),
    ("在庫はありますか", "現在在庫がございません。入荷は来週の予定です。"),
    ("電話番号は何番ですか", "代表は０３の１２３４の５６７８です。"),
    ("解約したいのですが", "お問い合わせフォームよりお申し込みください。"),
    ("支払い方法は？", "クレジットカード、銀行振込、コンビニ払いがご利用いただけます。"),
    ("駐車場はありますか", "店舗の裏に十台分ございます。"),
]

TAIWANESE: Pairs = [
    ("營業時間是幾點", "我們每天上午九點到下午六點營業。"),
    ("如何退貨", "請於七天內帶發票到門市辦理退貨。"),
    ("運費多少", "滿一千元免運費，未滿則收八十元。"),
    ("可以用信用卡嗎", "可以，我們接受各種信用卡付款。"),
    ("密碼忘記怎麼辦", "請點選登入頁面的「忘記密碼」重新設定。"),
    ("有停車場嗎", "店後方有十個停車位。"),
    ("保固多久", "自購買日起保固兩年。"),
    ("可以開發票嗎", "可以，請在結帳時填寫統一編號。"),
    ("怎麼聯絡客服", "請撥打客服專線或使用線上表單。"),
    ("商品有庫存嗎", "目前缺貨，預計下週到貨。"),
]

CHINESE: Pairs = [
    ("营业时间是几点", "我们每天上午九点到下午六点营业。"),
    ("如何退货", "请在七天内带发票到门店办理退货。"),
    ("运费多少", "满一千元免运费，未满则收八十元。"),
    ("可以用信用卡吗", "可以，我们接受各种信用卡付款。"),
    ("密码忘记怎么办", "请点击登录页面的“忘记密码”重新设置。"),
    ("有停车场吗", "店后面有十个停车位。"),
    ("保修多久", "自购买之日起保修两年。"),
    ("可以开发票吗", "可以，请在结账时填写税号。"),
    ("怎么联系客服", "请拨打客服热线或使用在线表单。"),
    ("商品有库存吗", "目前缺货，预计下周到货。"),
]

GERMAN: Pairs = [
    ("Wie groß ist das Gerät?", "Zwölf Zoll, für Büros geeignet."),
    ("Können Sie mir ein Angebot schicken?", "Natürlich, gerne über das Formular."),
    ("Wo finde ich die Öffnungszeiten?", "Auf unserer Seite unter „Über uns“."),
    ("Gilt der Schlüssel für mehrere Türen?", "Ja, für höchstens fünf."),
    ("Was kostet die Rücksendung?", "Fünf Euro, bei Mängeln übernehmen wir sie."),
    ("Wann wird geliefert?", "Werktags zwischen acht und zwölf Uhr, in größeren Städten früher."),
    ("Ist das Gehäuse wasserdicht?", "Nein, es ist nur spritzwassergeschützt."),
    ("Wie ändere ich mein Passwort?", "In den Einstellungen unter Persönliches."),
    ("Gibt es Ermäßigungen?", "Für Schüler und Studierende zehn Prozent."),
    ("Wer hört mir zu?", "Unser Team in München."),
]

FRENCH: Pairs = [
    ("Où êtes-vous situés ?", "À Genève, près de la gare."),
    ("Puis-je être remboursé ?", "Oui, après réception du colis à nos frais."),
    ("Quelle est la durée de la garantie ?", "Deux années à partir de l’achat."),
    ("Comment réinitialiser mon mot de passe ?", "Cliquez sur « Mot de passe oublié »."),
    ("Livrez-vous à l’étranger ?", "Oui, en Belgique et au Québec."),
    ("Êtes-vous fermés à Noël ?", "Oui, du 24 au 26 décembre."),
    ("Y a-t-il des frais cachés ?", "Non, le prix affiché est complet."),
    ("Où trouver ma facture ?", "Dans votre espace, rubrique « Mes commandes »."),
    ("Le café est-il bio ?", "Il est certifié et équitable."),
    ("Qui dois-je contacter ?", "Écrivez à notre équipe dédiée."),
]

SPANISH: Pairs = [
    ("¿Dónde están?", "En Málaga, junto a la estación."),
    ("¿Qué días abren?", "De lunes a sábado, también en agosto."),
    ("¿Cómo devuelvo un artículo?", "En treinta días y con la factura."),
    ("¿Hay garantía?", "Sí, dos años según la ley."),
    ("¿Cuánto cuesta el envío?", "Cinco euros; más de cincuenta, gratis."),
    ("¿Tienen teléfono?", "Llámenos al número de atención."),
    ("¿Aceptan tarjeta?", "Sí, también débito."),
    ("¿Olvidé mi contraseña?", "Pulse «recuperar» en la página de sesión."),
    ("¿Mañana abren?", "No, será festivo en España."),
    ("¿Quién firma?", "El señor Núñez."),
]

ENGLISH: Pairs = [
    ("What’s the price?", "It’s €5 – really."),
    ("Don’t you ship?", "We don’t, we’re sorry."),
    ("Is it open?", "It’ll be open at 9."),
    ("Who’s there?", "I’m Joe, you’re early."),
    ("Can’t log in", "Let’s reset: choose “Forgot”."),
    ("Where’s it?", "There’s a café, that’s near."),
    ("Shouldn’t it?", "Wouldn’t you?"),
    ("He’s in?", "She’s out"),
    ("Aren’t they?", "They’ve left"),
    ("Couldn’t?", "Hasn’t"),
]

KOREAN: Pairs = [
    ("영업시간이 어떻게 되나요", "평일 오전 아홉시부터 오후 여섯시까지입니다."),
    ("반품할 수 있나요", "네, 수령 후 칠일 이내에 가능합니다."),
    ("배송비는 얼마인가요", "오만원 이상 구매하시면 무료입니다."),
    ("비밀번호를 잊었어요", "로그인 화면에서 재설정해 주세요."),
    ("영수증 발행되나요", "마이페이지에서 내려받을 수 있습니다."),
]

POLISH: Pairs = [
    ("Gdzie jesteście?", "W Łodzi, koło dworca, wejście od podwórza."),
    ("Czy można zwrócić?", "Tak, w ciągu trzydziestu dni, proszę zachować paragon."),
    ("Ile kosztuje przesyłka?", "Dziesięć złotych, powyżej stu złotych za darmo."),
    ("Jak zmienić hasło?", "Proszę kliknąć „zapomniałem hasła”."),
    ("Czy jest gwarancja?", "Dwa lata od daty zakupu, także na części."),
    ("Kiedy otwieracie?", "Codziennie o ósmej, w niedzielę później."),
    ("Czy będzie dostępny?", "Przyjdzie w przyszłym tygodniu, ślemy wiadomość."),
    ("Ktoś odbierze?", "Może sąsiad."),
    ("Jaką masz wagę?", "Sześć kilogramów."),
    ("Źródło?", "Nasza księga."),
]

CZECH: Pairs = [
    ("Kde jste?", "V Brně, u nádraží, vchod ze dvora."),
    ("Mohu zboží vrátit?", "Ano, do třiceti dnů s účtenkou."),
    ("Kolik stojí doprava?", "Devadesát korun, nad tisíc zdarma."),
    ("Jak změním heslo?", "Klikněte na „zapomenuté heslo“."),
    ("Je záruka?", "Dva roky od nákupu, i na části."),
    ("Kdy otevíráte?", "Denně v osm, v neděli později."),
    ("Bude skladem?", "Přijde příští týden, pošleme zprávu."),
    ("Můj účet?", "Ve středu večer."),
    ("Žádost?", "Řekněte nám."),
    ("Čí je?", "Náš."),
]

TURKISH: Pairs = [
    ("Neredesiniz?", "İstanbul'da, istasyonun yanında, şehir merkezinde."),
    ("İade edebilir miyim?", "Evet, otuz gün içinde fişle birlikte."),
    ("Kargo ücreti ne kadar?", "Yüz lira üzeri ücretsiz, altı on lira."),
    ("Şifremi unuttum", "Giriş ekranında “şifremi unuttum” seçeneğine tıklayın."),
    ("Garanti var mı?", "İki yıl, satın alma tarihinden."),
    ("Açık mısınız?", "Hafta içi dokuzdan altıya kadar."),
    ("Ödeme nasıl?", "Kredi kartı ya da havale ile."),
    ("Müşteri hizmetleri?", "Arayın, görüşelim."),
    ("Ürün var mı?", "Şu an yok, gelecek hafta."),
    ("Büyük mü?", "Değil."),
]

RUSSIAN: Pairs = [
    ("Где вы находитесь?", "В Москве, рядом с вокзалом."),
    ("Можно вернуть товар?", "Да, в течение тридцати дней с чеком."),
    ("Сколько стоит доставка?", "Триста рублей, свыше тысячи бесплатно."),
]

GREEK: Pairs = [
    ("Πού βρίσκεστε;", "Στην Αθήνα, κοντά στον σταθμό."),
    ("Μπορώ να το επιστρέψω;", "Ναι, μέσα σε τριάντα ημέρες."),
    ("Πόσο κοστίζει η αποστολή;", "Πέντε ευρώ, δωρεάν πάνω από πενήντα."),
]

THAI: Pairs = [
    ("ร้านเปิดกี่โมง", "เปิดเก้าโมงเช้าถึงหกโมงเย็น"),
    ("คืนสินค้าได้ไหม", "ได้ภายในเจ็ดวันพร้อมใบเสร็จ"),
    ("ค่าส่งเท่าไร", "ฟรีเมื่อซื้อครบหนึ่งพันบาท"),
]

ARABIC: Pairs = [
    ("أين يقع المتجر؟", "في وسط المدينة قرب المحطة"),
    ("هل يمكنني الإرجاع؟", "نعم خلال ثلاثين يوما مع الفاتورة"),
    ("كم تكلفة الشحن؟", "مجانا فوق مئة"),
]

HUNGARIAN: Pairs = [
    ("Hol vannak önök?", "Győrben, a főtér mellett, a hűtőház előtt."),
    ("Visszaküldhetem?", "Igen, őrizze meg a számlát, nyújtsa be később."),
    ("Mennyibe kerül?", "Ötezer forint fölött ingyenes, különben ezer."),
    ("Új jelszó?", "Kérjük, használja az űrlapot."),
    ("Mikor nyílik?", "Hétfőtől péntekig, reggel nyolctól."),
]
